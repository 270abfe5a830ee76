"""Matrix memories written every token, as chunk-parallel recurrences (classes D and R)."""

from __future__ import annotations

from nldsl.calculus import gradient
from nldsl.emit.nodes import Assign, Expression, Literal, Starred, TupleOf, assign, call, name
from nldsl.lowerings.apply import lower_apply
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.exprs import ExprRows, takes_number
from nldsl.lowerings.numbered import asks, number_steps
from nldsl.plan.details import RecurrenceDetail
from nldsl.plan.plan import Unit
from nldsl.spec.program import Memory, Term, Value

COLON = slice(None)


def lower(code: BlockCode, unit: Unit) -> None:
    """One call of the kernel per read; the state comes from the first."""
    detail = unit.detail
    assert isinstance(detail, RecurrenceDetail)
    memory = detail.memory
    assert memory.function is not None
    weight = memory.function.weights[0].name
    prefix = memory.name
    names = {n: code.scope.names.fresh(f"{prefix}_{n}") for n in ("state", "add", "erase", "next", "count")}
    rows = _rows(code, detail)
    key = by_head(code, detail.write.terms[0].key, memory)
    start = name("state")[memory.path]["running"][weight]
    code.scope.add(assign(names["state"], start if memory.per_head else start.method("unsqueeze", 1)))
    code.scope.add(assign(names["add"], rows.vector(detail.add, key, memory.value_size)))
    gates = _gates(code, detail)
    extra: list[Expression] = []
    if detail.erase is not None:
        code.scope.add(assign(names["erase"], rows.scalar(detail.erase, key)))
        extra = [name(names["erase"])]
        gates["feedback"] = Literal(detail.feedback)
    kernel = code.runtime("recurrence", "linear_recurrence" if detail.erase is None else "delta_recurrence")
    for position, (read, state) in enumerate(detail.reads or ((None, "after"),)):
        for step in detail.turns[position] if read is not None else ():
            lower_apply(code.scope, step)
        query = key if read is None else by_head(code, read.key, memory)
        out = "_" if read is None else code.scope.names.of(read.out)
        kept = names["next"] if position == 0 else "_"
        result = kernel(
            query,
            key,
            name(names["add"]),
            *extra,
            name(names["state"]),
            **gates,
            read=state,
            mask=code.scope.mask,
        )
        code.scope.add(Assign((TupleOf((name(out), name(kept))),), result))
        if read is not None and not memory.per_head:
            code.scope.add(assign(out, name(out).method("squeeze", 2)))
    _store(code, memory, weight, names["next"])


def by_head(code: BlockCode, value: Value, memory: Memory) -> Expression:
    """`[B, T, H, d]`; a memory that is not per head has one head."""
    expression = code.scope.ref(value)
    return expression if memory.per_head else expression.method("unsqueeze", 2)


def _store(code: BlockCode, memory: Memory, weight: str, last: str) -> None:
    kept = name(last) if memory.per_head else name(last).method("squeeze", 1)
    count = call(
        code.runtime("token", "tick_all"),
        name("state")[memory.path]["count"],
        code.scope.mask,
        code.scope.source,
    )
    code.scope.add(assign(name("new")[memory.path], {"running": {weight: kept}, "count": count}))


def _rows(code: BlockCode, detail: RecurrenceDetail) -> ExprRows:
    """The symbols of `erase` and `add` as rows of the sequence layout."""
    term = detail.write.terms[0]
    rows = ExprRows.inside(code.scope)
    rows.bind("key", by_head(code, term.key, detail.memory))
    rows.bind("x", by_head(code, term.key, detail.memory))
    rows.bind("target", target_rows(code, term, detail.memory))
    if asks(detail.write):
        rows.bind("step", step_rows(code, detail.memory))
    for argument, value in term.rule.arguments:
        rows.bind(argument, gate_rows(code, value, detail.memory), "argument")
    return rows


def step_rows(code: BlockCode, memory: Memory) -> Expression:
    """The number of the rule's application as rows `[B, T, H, 1]`."""
    return number_steps(code, memory)[..., None, None].method("expand", -1, -1, memory.heads, 1)


def target_rows(code: BlockCode, term: Term, memory: Memory) -> Expression:
    """A target in sequence layout as `[B, T, H, V]`; a literal stays one where no channels are summed."""
    value = term.target
    if value.kind in ("headed", "vector") and value.shape[-1] == memory.value_size:
        return by_head(code, value, memory)
    if value.name in code.scope.constants:
        assert memory.function is not None
        found = gradient(memory.function, term.objective).gradients
        if all(takes_number(g.expression, "target") for g in found):
            return code.scope.ref(value)
        key = by_head(code, term.key, memory)
        rows = (Starred(key.attr("shape")[slice(None, -1)]), memory.value_size)
        return key.method("new_full", rows, float(code.scope.constants[value.name]))
    return gate_rows(code, value, memory).method("expand", -1, -1, memory.heads, memory.value_size)


def gate_rows(code: BlockCode, value: Value, memory: Memory) -> Expression:
    """A gate in sequence layout as rows `[B, T, H, 1]`."""
    expression = code.scope.ref(value)
    if value.name in code.scope.constants:
        return expression
    if value.shape:
        return expression[..., None]
    rows = expression[..., None, None]
    return rows.method("expand", -1, -1, memory.heads, 1) if memory.heads > 1 else rows


def _gates(code: BlockCode, detail: RecurrenceDetail) -> dict[str, Expression]:
    """`log_decay=` where the logarithm of the gate is at hand, else `decay=`; `[B, T, H]`."""
    if detail.decay is None:
        return {}
    key = by_head(code, detail.write.terms[0].key, detail.memory)
    decay = gate(code, detail.decay, key, detail.memory)
    return {"log_decay" if detail.decay_is_log else "decay": decay}


def gate(code: BlockCode, value: Value, key: Expression, memory: Memory) -> Expression:
    """A gate in sequence layout as `[B, T, H]`."""
    gate = code.scope.ref(value)
    plain = value.name in code.scope.constants
    if value.shape and not plain and memory.per_head:
        return gate
    spread = code.runtime("token", "spread")
    return spread(gate if plain else gate[..., None], key)
