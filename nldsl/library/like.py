"""A memory of a rule with the shape of a weight, zero at the start: `memory m = like(W)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    return Outcome(operands[0].shape, operands[0].kind)


def _reference(x: Any) -> Any:
    """Zeros."""
    return np.zeros_like(x)


PRIMITIVE = Primitive(
    name="like",
    doc="A memory of a rule with the shape of a weight, zero at the start: `memory m = like(W)`.",
    example="rule example(lr) { memory m = like(W); m = 0.9 * m + g; W = W - lr * m }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:like",
    folded=True,
    places=frozenset({"rule"}),
    equation="m_0 = 0",
    reference=_reference,
)
