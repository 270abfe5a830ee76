"""Scale every row of a matrix to unit Euclidean length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    expect(operands[0], ("matrix",), "rownorm", "vectors are scaled by `l2norm`")
    return Outcome(operands[0].shape, operands[0].kind)


def _reference(x: Any, *, eps: float) -> Any:
    """One matrix."""
    return x / np.sqrt(np.sum(x**2, axis=-1, keepdims=True) + eps)


PRIMITIVE = Primitive(
    name="rownorm",
    doc="Scale every row of a matrix to unit Euclidean length.",
    example="rule example(lr) { W = rownorm(W - lr * g) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:rownorm",
    options=(Option("eps", 1e-6, "keeps a zero input finite", minimum=0.0),),
    places=frozenset({"rule"}),
    equation="y_ij = x_ij / sqrt(sum_j x_ij^2 + eps)",
    reference=_reference,
)
