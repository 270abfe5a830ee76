"""Where axes stand: align operands, move heads in front of tokens and back.

Legend: B batch, T tokens of the sequence, C tokens of a chunk, H heads, m stacked memories, d channels.
"""

from __future__ import annotations

from nldsl.catalog import Operand, broadcast
from nldsl.catalog.values import Kind, Shape
from nldsl.emit.expressions import Expression
from nldsl.lowerings.scope import Layout, Scope
from nldsl.spec.program import Value

COLON = slice(None)


def operand(value: Value) -> Operand:
    """Shape and kind of a value, as shape rules want it."""
    return Operand(value.shape, value.kind)


def to_sequence(expression: Expression, kind: Kind) -> Expression:
    """Chunk layout to sequence layout: tokens before heads."""
    if kind == "headed":
        return expression.attr("transpose")(1, 2)
    return expression.attr("mT") if kind == "heads" else expression


def to_chunk(expression: Expression, kind: Kind) -> Expression:
    """Sequence layout to chunk layout: heads before tokens (the same exchange of two axes)."""
    return to_sequence(expression, kind)


def as_heads(expression: Expression, value: Value, layout: Layout) -> Expression:
    """A vector `[H]` that serves as one number per head, in the layout of `heads`."""
    return expression.attr("mT") if value.kind == "vector" and layout == "chunk" else expression


def aligned(scope: Scope, args: tuple[Value, ...]) -> list[Expression]:
    """The operands of an elementwise operation, viewed so that plain broadcasting applies."""
    result = broadcast([operand(a) for a in args])
    stacked = any(a.name in scope.stacked for a in args)
    out = []
    for value, view in zip(args, result.views, strict=True):
        expression = scope.ref(value)
        if value.name not in scope.constants:
            expression = _view(scope, expression, value, view, result.kind)
            if stacked and value.name not in scope.stacked and value.name not in scope.unbatched:
                expression = stack_axis(expression, result.kind)
        out.append(expression)
    return out


def stack_axis(expression: Expression, kind: Kind) -> Expression:
    """A memory axis of size one in front of the token axis (chunk layout)."""
    return expression.attr("unsqueeze")(-3 if kind in ("headed", "vector") else -2)


def _view(scope: Scope, expression: Expression, value: Value, view: Shape, kind: Kind) -> Expression:
    if value.name in scope.unbatched:
        return _parameter_view(expression, value, view, scope.layout, kind)
    if scope.layout == "sequence":
        return _sequence_view(expression, value, view)
    return _chunk_view(expression, value, view, kind)


def _sequence_view(expression: Expression, value: Value, view: Shape) -> Expression:
    if value.shape == view:
        return expression
    if not value.shape:
        return expression[(..., *[None] * len(view))]
    return expression[..., None] if view[-1] == 1 else expression[..., None, COLON]


def _chunk_view(expression: Expression, value: Value, view: Shape, kind: Kind) -> Expression:
    if kind == "headed":
        if value.kind == "headed":
            return expression
        if not value.shape:
            return expression[COLON, None, COLON, None]
        if value.kind == "vector" and view[0] == 1:
            return expression[COLON, None]
        return as_heads(expression, value, "chunk")[..., None]
    if kind == "heads":
        return expression[COLON, None] if not value.shape else as_heads(expression, value, "chunk")
    missing = {"scalar": 0, "matrix": 2}.get(kind, 1)
    return expression if value.shape or not missing else expression[(..., *[None] * missing)]


def _parameter_view(
    expression: Expression, value: Value, view: Shape, layout: Layout, kind: Kind
) -> Expression:
    """A slow parameter `[n]` has neither batch nor token axes: it is aligned on the right; a number stays."""
    if not value.shape:
        return expression
    per_head = kind == "headed" and value.shape != view and view[-1] == 1
    if layout == "sequence":
        return expression[COLON, None] if per_head else expression
    if per_head:
        return expression[COLON, None, None]
    if kind == "headed" and value.kind == "headed":
        return expression[COLON, None]
    return expression[COLON, None] if kind == "heads" else expression
