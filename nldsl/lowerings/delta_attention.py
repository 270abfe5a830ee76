"""Softmax memories whose values are made of what their keys have read (DeltaFormer): one triangular solve."""

from __future__ import annotations

from nldsl.emit.nodes import Assign, Expression, TupleOf, assign, name, to_expression
from nldsl.lowerings.apply import lower_apply
from nldsl.lowerings.attention import heads
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.exprs import ExprRows
from nldsl.plan.delta_attention import DeltaAttentionDetail
from nldsl.plan.plan import Unit
from nldsl.spec.program import Read, Value, option


def lower(code: BlockCode, unit: Unit) -> None:
    """The values of all tokens, then attention over them for every read that is needed."""
    detail = unit.detail
    assert isinstance(detail, DeltaAttentionDetail)
    scope, memory = code.scope, detail.memory
    (term,) = detail.write.terms
    keys, kept = heads(code, term.key, memory), name("state")[memory.path]
    rows = _rows(code, detail)
    looks = tuple(
        (heads(code, r.key, memory), rows.scalar(c, keys))
        for r, c in zip(detail.looks, detail.rates, strict=True)
    )
    values = scope.names.fresh(f"{memory.name}_values")
    rest = rows.vector(detail.rest, keys, term.target.shape[-1])
    solved = code.runtime("delta_attention", "solved_values")
    options = _options(detail)
    scope.add(assign(values, solved(looks, keys, rest, kept, mask=scope.mask, **options)))
    inner = {s.out.name for s in detail.steps} - {term.target.name}
    asked = [(r, True) for r in detail.looks if detail.outgoing & (inner | {r.out.name})]
    asked += [(r, False) for r in detail.late]
    # The state comes from a read: where nobody asks, of what was looked at.
    for place, (read, before) in enumerate(asked or [(detail.looks[0], True)]):
        _read(code, detail, (read, before), (keys, name(values)), place == 0)
    for step in detail.steps:
        if step.out.name != term.target.name and detail.outgoing & inner:
            lower_apply(scope, step)
    if term.target.name in detail.outgoing:
        scope.add(assign(scope.names.of(term.target), _as_seen(detail, name(values))))


def _read(
    code: BlockCode,
    detail: DeltaAttentionDetail,
    asked: tuple[Read, bool],
    pairs: tuple[Expression, Expression],
    first: bool,
) -> None:
    """`y, new["A"] = attention(q, k, u, state["A"], ...)`."""
    (read, before), memory = asked, detail.memory
    out = code.scope.names.of(read.out)
    options = _options(detail) | ({"read_before": to_expression(True)} if before else {})
    result = code.runtime("attention", "attention")(
        heads(code, read.key, memory), *pairs, name("state")[memory.path], mask=code.scope.mask, **options
    )
    state: Expression = name("new")[memory.path] if first else name("_")
    code.scope.add(Assign((TupleOf((name(out), state)),), result))
    if not memory.per_head:
        code.scope.add(assign(out, name(out).method("squeeze", 2)))


def _as_seen(detail: DeltaAttentionDetail, values: Expression) -> Expression:
    return values if detail.memory.per_head else values.method("squeeze", 2)


def _rows(code: BlockCode, detail: DeltaAttentionDetail) -> ExprRows:
    """What rates and rest are made of, as rows `[B, T, J, n]` or numbers `[B, T, J, 1]`."""
    rows = ExprRows.inside(code.scope)
    for value in detail.values:
        rows.bind(value.name, _row(code, detail, value), "value")
    return rows


def _row(code: BlockCode, detail: DeltaAttentionDetail, value: Value) -> Expression:
    expression = code.scope.ref(value)
    if value.name in code.scope.constants:
        return expression
    if value.kind == "headed":
        return expression
    if not value.shape:
        return expression[..., None, None].method("expand", -1, -1, detail.memory.heads, 1)
    if detail.memory.per_head:
        return expression[..., None]
    return expression.method("unsqueeze", 2)


def _options(detail: DeltaAttentionDetail) -> dict[str, Expression]:
    """Scale and window, as in `attention`."""
    memory = detail.memory
    scale, window = option(memory.options, "scale"), option(memory.options, "window")
    assert scale is None or isinstance(scale, int | float)
    size = detail.write.terms[0].key.shape[-1]
    out: dict[str, Expression] = {"scale": to_expression(size**-0.5 if scale is None else float(scale))}
    return out | ({"window": to_expression(window)} if isinstance(window, int) and window else {})
