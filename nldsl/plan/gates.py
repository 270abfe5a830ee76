"""Give gates their logarithm, where the block has it at hand.

A product of many gates is best kept as a sum of logarithms.  `exp(a)` has `a`, `sigmoid(a)` has
`logsigmoid(a)`, and products and powers of such have sums and multiples of these, exactly; what only lies
elsewhere (`split(exp(a))`) has its logarithm there; any other gate is carried as it is.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.calculus.classify import gate_logarithm
from nldsl.calculus.expression import SYMBOL, Expr, walk
from nldsl.plan.units import defined
from nldsl.spec.program import Apply, Block, Statement, Update, Value, Write

SUFFIX = "__log"
REARRANGES = frozenset({"split", "merge", "share"})
"""What only moves numbers; it moves their logarithms alike."""


def with_log_gates(block: Block) -> Block:
    """The same block, in which writes and scalings name the logarithm of their gate if there is one."""
    gates = {g.name for s in block.body if (g := gate_of(s)) is not None}
    body: list[Statement] = []
    logs: dict[str, Value] = {}
    for statement in block.body:
        body.append(statement)
        if isinstance(statement, Apply) and statement.out.name in gates:
            log, made = _logarithm(block, statement)
            if log is not None:
                logs[statement.out.name] = log
            body.extend(made)
    return replace(block, body=tuple(_with_log(s, logs) for s in body)) if logs else block


def _logarithm(block: Block, gate: Apply) -> tuple[Value | None, list[Apply]]:
    """The logarithm of a gate, if it has one, and the statements that compute it."""
    if gate.op == "exp":
        return gate.args[0], []
    maker = _maker(block, gate.args[0]) if gate.op in REARRANGES else None
    if maker is not None:
        log, made = _logarithm(block, maker)
        if log is not None:
            out = replace(gate.out, name=gate.out.name + SUFFIX)
            return out, [*made, replace(gate, out=out, args=(log,))]
    if maker is None and gate.op == "detach":
        return _detached(block, gate)
    made = _steps(block, gate)
    return (made[-1].out if made else None), made


def _detached(block: Block, gate: Apply) -> tuple[Value | None, list[Apply]]:
    """That of what is detached, detached: `detach(exp(a))` has `detach(a)`."""
    maker = _maker(block, gate.args[0])
    log, made = (None, []) if maker is None else _logarithm(block, maker)
    if log is None:
        return None, []
    out = replace(gate.out, name=gate.out.name + SUFFIX)
    # A value may be the gate of one write, and detached that of another: each has steps of its own.
    renamed = {s.out.name: replace(s.out, name=f"{s.out.name}_of_{gate.out.name}") for s in made}
    steps = [
        replace(s, out=renamed[s.out.name], args=tuple(renamed.get(a.name, a) for a in s.args)) for s in made
    ]
    return out, [*steps, replace(gate, out=out, args=(renamed.get(log.name, log),))]


def _maker(block: Block, value: Value) -> Apply | None:
    return next((s for s in block.body if isinstance(s, Apply) and s.out == value), None)


def _steps(block: Block, gate: Apply) -> list[Apply]:
    """The statements that compute the logarithm of a gate; none if it has none without a `log`."""
    out = replace(gate.out, name=gate.out.name + SUFFIX)
    if gate.op == "sigmoid":
        return [Apply(out, "logsigmoid", gate.args, span=gate.span)]
    found = gate_logarithm(block, gate.out)
    if found is None or found.shape != gate.out.shape or any(e.op == "log" or e.owned for e in walk([found])):
        return []
    values = {v.name: v for v in (*block.inputs, *(v for s in block.body for v in defined(s)))}
    known: dict[Expr, Value] = {}
    steps: list[Apply] = []
    for node in walk([found]):
        if node.op == SYMBOL:
            known[node] = values[node.name]
            continue
        name = out.name if node is found else f"{out.name}_{len(steps)}"
        known[node] = Value(name, node.shape, node.kind)
        args = tuple(known[a] for a in node.args)
        steps.append(Apply(known[node], node.op, args, node.options, span=gate.span))
    return steps


def logarithm_of(block: Block, value: Value) -> Value | Apply | None:
    """The logarithm of a value that is `exp` of another, or one statement for it if it is `sigmoid`."""
    maker = _maker(block, value)
    if maker is not None and maker.op == "exp":
        return maker.args[0]
    if maker is None or maker.op != "sigmoid":
        return None
    out = replace(value, name=value.name + SUFFIX + "_beta")
    return Apply(out, "logsigmoid", maker.args, span=maker.span)


def gate_of(statement: Statement) -> Value | None:
    """The gate of a write or of `M *= a`."""
    if isinstance(statement, Write):
        return statement.retain
    return statement.value if isinstance(statement, Update) and statement.op == "scale" else None


def _with_log(statement: Statement, logs: dict[str, Value]) -> Statement:
    gate = gate_of(statement)
    if gate is None or gate.name not in logs:
        return statement
    if isinstance(statement, Write):
        return replace(statement, retain_log=logs[gate.name])
    assert isinstance(statement, Update)
    return replace(statement, value_log=logs[gate.name])
