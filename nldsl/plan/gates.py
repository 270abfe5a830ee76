"""Give gates their logarithm, where the block has it at hand.

A product of many gates is best kept as a sum of logarithms.  `exp(a)` has `a`, `sigmoid(a)` has
`logsigmoid(a)`, exactly; any other gate is carried as it is.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.spec.program import Apply, Block, Statement, Update, Value, Write

SUFFIX = "__log"


def with_log_gates(block: Block) -> Block:
    """The same block, in which writes and scalings name the logarithm of their gate if there is one."""
    gates = {g.name for s in block.body if (g := gate_of(s)) is not None}
    body: list[Statement] = []
    logs: dict[str, Value] = {}
    for statement in block.body:
        body.append(statement)
        if isinstance(statement, Apply) and statement.out.name in gates:
            if statement.op == "exp":
                logs[statement.out.name] = statement.args[0]
            elif statement.op == "sigmoid":
                out = replace(statement.out, name=statement.out.name + SUFFIX)
                body.append(Apply(out, "logsigmoid", statement.args, span=statement.span))
                logs[statement.out.name] = out
    return replace(block, body=tuple(_with_log(s, logs) for s in body)) if logs else block


def gate_of(statement: Statement) -> Value | None:
    """The scalar gate of a write or of `M *= a`."""
    if isinstance(statement, Write):
        return statement.retain if statement.retain_axis == "scalar" else None
    if isinstance(statement, Update) and statement.op == "scale" and statement.axis == "scalar":
        return statement.value
    return None


def _with_log(statement: Statement, logs: dict[str, Value]) -> Statement:
    gate = gate_of(statement)
    if gate is None or gate.name not in logs:
        return statement
    if isinstance(statement, Write):
        return replace(statement, retain_log=logs[gate.name])
    assert isinstance(statement, Update)
    return replace(statement, value_log=logs[gate.name])
