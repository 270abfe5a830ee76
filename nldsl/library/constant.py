"""A number written in the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    return Outcome((), "scalar")


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return ()


def _reference(*, value: float) -> Any:
    """The number."""
    return np.asarray(value, dtype=float)


PRIMITIVE = Primitive(
    name="constant",
    doc="A number written in the program.",
    example="block example(x) { return 0.5 * x }",
    values=(),
    shape=_shape,
    torch="nldsl.runtime.ops:constant",
    options=(Option("value", "REQUIRED", "the number"),),
    vjp=_vjp,
    equation="y = value",
    reference=_reference,
)
