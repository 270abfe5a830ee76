"""How values of different kinds meet in an elementwise operation: one rule for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.catalog.primitive import ContractError, Operand
from nldsl.catalog.values import Kind, Shape

_RANK: dict[Kind, int] = {"token": 0, "scalar": 0, "vector": 1, "heads": 2, "headed": 3, "matrix": 3}


@dataclass(frozen=True)
class Broadcast:
    """Shape and kind of the result, and the shape each operand is viewed as to get there.

    `views[i]` has the rank of `shape`, with 1 where operand `i` is repeated: a tensor
    `[B, T, *operand]` is viewed as `[B, T, *views[i]]`, after which plain broadcasting applies.
    """

    shape: Shape
    kind: Kind
    views: tuple[Shape, ...]


def describe(operand: Operand) -> str:
    """A value in words: `vector [64]`, `headed [4, 16]`, `scalar`."""
    return f"{operand.kind} [{', '.join(map(str, operand.shape))}]" if operand.shape else operand.kind


def broadcast(operands: Sequence[Operand], name: str = "operation") -> Broadcast:
    """The result of an elementwise operation and how its operands are aligned.

    A scalar meets anything; equal shapes meet; `heads [H]` meets `headed [H, d]` one number per
    head; `vector [n]` meets `headed [H, d]` as heads if `n = H`, else along the channels if
    `n = d`.  Kinds win in the order headed, heads, vector, scalar.

    Errors: `ContractError` naming both shapes.

    Example:
        >>> broadcast([Operand((4,), "heads"), Operand((4, 16), "headed")])
        Broadcast(shape=(4, 16), kind='headed', views=((4, 1), (4, 16)))
    """
    for operand in operands:
        if operand.kind == "token":
            raise ContractError(
                f"`{name}` needs numbers, found a token stream; look it up with `embed` first"
            )
    best = max(operands, key=lambda o: (len(o.shape), _RANK[o.kind]))
    views = tuple(_view(o, best, name) for o in operands)
    return Broadcast(best.shape, best.kind, views)


def _view(operand: Operand, best: Operand, name: str) -> Shape:
    """The shape `operand` takes against the largest one."""
    full = best.shape
    if not operand.shape:
        return (1,) * len(full)
    mixed = "matrix" in (operand.kind, best.kind) and operand.kind != best.kind
    if operand.shape == full and not mixed:
        return full
    if best.kind == "headed" and len(operand.shape) == 1:
        heads, size = full
        if operand.shape[0] == heads:
            return (heads, 1)
        if operand.kind == "vector" and operand.shape[0] == size:
            return (1, size)
    raise ContractError(
        f"`{name}` cannot combine {describe(operand)} with {describe(best)}; {_advice(operand, best)}"
    )


ROWS = "`sum` and `mean` are per row, `sum(sum(W))` is one number, `expand_last(rows, W)` spreads rows"
"""How a rule gets from one number per row to what meets a matrix."""


def _advice(operand: Operand, best: Operand) -> str:
    """What would have fitted."""
    for one, other in ((operand, best), (best, operand)):
        if one.shape[-1:] == (1,) and other.shape[-1:] not in ((), (1,)) and one.kind in ("vector", "headed"):
            what = "one number per head, which meets" if one.kind == "headed" else "a number, which meets"
            return f"one channel is not spread over {other.shape[-1]}: `sum(...)` of it is {what} all"
    if best.kind == "headed" and operand.kind in ("vector", "heads"):
        heads, size = best.shape
        if operand.shape[0] == heads * size:
            return f"expected equal shapes: `split` the vector into {heads} heads or `merge` the other"
        return f"expected [{heads}] (one number per head), [{size}] (one per channel) or [{heads}, {size}]"
    if best.kind == "matrix":
        rows = operand.shape == best.shape[:1]
        each = f"; in a rule {ROWS}" if rows else ""
        return f"expected a scalar or a matrix of the same shape (use `outer` or `@` for products{each})"
    return f"expected a scalar or equal shapes, here [{', '.join(map(str, best.shape))}]"
