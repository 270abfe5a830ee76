"""Sum over the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import without_last


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    return Outcome(*without_last(operands[0], "sum"))


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return (b("expand_last", grad, args[0]),)


def _reference(x: Any) -> Any:
    """Headed values give one number per head."""
    return np.sum(x, axis=-1)


PRIMITIVE = Primitive(
    name="sum",
    doc="Sum over the last axis.",
    example="block example(x) { return x / (1 + sum(x ** 2)) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:sum",
    vjp=_vjp,
    equation="y = sum_i x_i",
    reference=_reference,
)
