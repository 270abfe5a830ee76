"""Number of channels of a value, a static number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    if not operands[0].shape:
        raise ContractError(f"`dim` counts channels, found a {operands[0].kind}, which has none")
    return Outcome((), "scalar")


def _reference(x: Any, *, kind: str = "vector") -> Any:
    """The last axis, all heads together for a headed value."""
    return np.asarray(float(np.size(x) if kind == "headed" else np.shape(x)[-1]))


PRIMITIVE = Primitive(
    name="dim",
    doc="Number of channels of a value, a static number.",
    example="block example(x) { return linear(x, 2 * dim(x)) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:dim",
    folded=True,
    places=frozenset({"block", "map", "objective", "rule"}),
    equation="y = d",
    reference=_reference,
)
