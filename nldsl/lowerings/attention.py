"""Softmax memories as scaled dot-product attention with a cache."""

from __future__ import annotations

from nldsl.emit.nodes import Assign, Expression, TupleOf, name, to_expression
from nldsl.lowerings.apply import lower_apply, parameter
from nldsl.lowerings.blocks import BlockCode
from nldsl.plan.details import AttentionDetail
from nldsl.plan.plan import Unit
from nldsl.spec.program import Memory, Read, Value, option

COLON = slice(None)


def lower(code: BlockCode, unit: Unit) -> None:
    """`y, new["A"] = attention(q, k, v, state["A"], ...)` for every read."""
    detail = unit.detail
    assert isinstance(detail, AttentionDetail)
    memory = detail.memory
    keys, values = (_rows(code, detail, n) for n in (0, 1))
    for position, (read, unseen) in enumerate(detail.reads):
        for step in detail.turns[position]:
            lower_apply(code.scope, step)
        out = code.scope.names.of(read.out)
        kept: Expression = name("new")[memory.path] if position == 0 else name("_")
        result = code.runtime("attention", "attention")(
            heads(code, read.key, memory),
            keys,
            values,
            name("state")[memory.path],
            mask=code.scope.mask,
            **_options(detail, read, unseen),
        )
        code.scope.add(Assign((TupleOf((name(out), kept)),), result))
        if not memory.per_head:
            code.scope.add(Assign((name(out),), name(out).method("squeeze", 2)))


def _rows(code: BlockCode, detail: AttentionDetail, part: int) -> Expression:
    """Keys or values `[B, T, H, d]`; those of several pairs per token stand together."""
    rows = [heads(code, pair[part], detail.memory) for pair in detail.pairs]
    return rows[0] if len(rows) == 1 else code.runtime("attention", "interleaved")(*rows)


def heads(code: BlockCode, value: Value, memory: Memory) -> Expression:
    """`[B, T, H, d]`; a memory that is not per head has one."""
    expression = code.scope.ref(value)
    return expression if memory.per_head else expression.method("unsqueeze", 2)


def _options(detail: AttentionDetail, read: Read, unseen: int) -> dict[str, Expression]:
    memory = detail.memory
    scale = option(memory.options, "scale")
    size = read.key.shape[-1]
    assert scale is None or isinstance(scale, int | float)
    out: dict[str, Expression] = {"scale": to_expression(size**-0.5 if scale is None else float(scale))}
    window = option(memory.options, "window")
    if isinstance(window, int) and window:
        out["window"] = to_expression(window)
    if memory.parameters:
        out["start"] = to_expression(tuple(parameter(p.path) for p in memory.parameters))
    if len(detail.pairs) > 1:
        out |= {"pairs": to_expression(len(detail.pairs)), "unseen": to_expression(unseen)}
    elif unseen:
        out["read_before"] = to_expression(True)
    return out
