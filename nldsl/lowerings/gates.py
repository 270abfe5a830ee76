"""Keys, targets and gates of a memory, as rows (see `columns`), in chunk layout."""

from __future__ import annotations

from nldsl.emit.nodes import Expression, Starred
from nldsl.lowerings.layout import as_heads
from nldsl.lowerings.scope import Scope
from nldsl.spec.program import Memory, Value

COLON = slice(None)


def heads_of(value: Value) -> int:
    """Number of heads of a key or query (1 if it has none)."""
    return value.shape[0] if value.kind == "headed" else 1


def gate(scope: Scope, value: Value, memory: Memory, axis: str = "scalar") -> Expression:
    """A gate or rate as rows: `[..., C, 1]`, or `[..., C, dk]` along the key or value channels."""
    expression = scope.ref(value)
    if value.name in scope.constants:
        return expression
    if value.kind == "matrix":
        # One token at a time; the same for all heads.
        return expression if memory.per_head or value.name in scope.unbatched else expression[COLON, 0]
    return rows_of(expression, value, memory, axis)


def rows_of(expression: Expression, value: Value, memory: Memory, axis: str = "scalar") -> Expression:
    """The same of an expression in chunk layout, for any number of tokens; no matrix, no literal."""
    if axis in ("key", "value"):
        row = expression
        if memory.per_head and value.kind == "vector":
            row = expression[COLON, None]
        return row.attr("mT") if axis == "value" else row
    if not value.shape:
        return expression[COLON, None, COLON, None] if memory.per_head else expression[..., None]
    return as_heads(expression, value, "chunk")[..., None]


def head_gate(scope: Scope, value: Value, memory: Memory) -> Expression:
    """A gate as the runtime's chunk functions take it: `[B, H, C]` per head, else `[B, C]`."""
    expression = scope.ref(value)
    if value.name in scope.constants:
        return expression
    if not value.shape:
        return expression[COLON, None] if memory.per_head else expression
    return as_heads(expression, value, "chunk")


def target_rows(scope: Scope, target: Value, key: Expression, memory: Memory) -> Expression:
    """The target as rows `[..., C, dv]`; a scalar target is repeated over the value channels."""
    if target.kind in ("headed", "vector"):
        expression = scope.ref(target)
        if memory.per_head and target.kind == "vector":
            return expression[COLON, None]
        return expression
    if target.name in scope.constants:
        rows = (Starred(key.attr("shape")[slice(None, -1)]), memory.value_size)
        return key.method("new_full", rows, scope.ref(target))
    repeats = (-1, -1, -1) if memory.per_head else (-1, -1)
    return gate(scope, target, memory).method("expand", *repeats, memory.value_size)
