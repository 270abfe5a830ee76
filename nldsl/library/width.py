"""Number of channels of one head, a static number; of a vector, all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    if not operands[0].shape:
        raise ContractError(f"`width` counts channels, found a {operands[0].kind}, which has none")
    return Outcome((), "scalar")


def _reference(x: Any) -> Any:
    """The last axis."""
    return np.asarray(float(np.shape(x)[-1]))


PRIMITIVE = Primitive(
    name="width",
    doc="Number of channels of one head, a static number; of a vector, all of them.",
    example="block example(x, heads = 2) { z = split(x, heads); return z / width(z) ** 0.5 }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:width",
    folded=True,
    places=frozenset({"block"}),
    equation="y = d / heads",
    reference=_reference,
)
