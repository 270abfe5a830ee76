"""One matrix for every head: `W @ z` head by head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    matrix, z = operands
    expect(matrix, ("matrix",), "headwise", "its first argument is `weight(out, in)`")
    expect(z, ("headed", "vector"), "headwise", "it acts on the channels of every head")
    if matrix.shape[1] != z.shape[-1]:
        raise ContractError(
            f"`headwise` expected {matrix.shape[1]} channels per head, as {describe(matrix)} has columns, "
            f"found {describe(z)}"
        )
    return Outcome((*z.shape[:-1], matrix.shape[0]), z.kind)


def _reference(matrix: Any, z: Any) -> Any:
    """One token; the heads, if any, are rows."""
    return np.asarray(z) @ np.transpose(matrix)


PRIMITIVE = Primitive(
    name="headwise",
    doc="One matrix for every head: `W @ z` head by head, where `linear` would mix the heads.",
    example="block example(x, heads = 2) { z = split(x, heads); n = dim(x) // heads; "
    "W = weight(n, n); return headwise(W, z) }",
    values=("matrix", "z"),
    shape=_shape,
    torch="nldsl.runtime.ops:headwise",
    places=frozenset({"block"}),
    equation="y_hi = sum_j matrix_ij z_hj",
    reference=_reference,
)
