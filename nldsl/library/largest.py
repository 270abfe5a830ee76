"""The largest number of the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import without_last


def largest(x: Any) -> Any:
    """Of one token, or of a weight and every row of a matrix."""
    return x.amax(-1)


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    if operands[0].shape[-1:] == (0,):
        raise ContractError("`largest` of an axis without numbers is none")
    return Outcome(*without_last(operands[0], "largest"))


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    """Numbers that are equally large share it, as `amax` of torch has it."""
    x = args[0]
    here = b("eq", x, b("expand_last", out, x))
    return (b("mul", here, b("expand_last", b("div", grad, b("sum", here)), x)),)


def _reference(x: Any) -> Any:
    """Headed values give one number per head."""
    return np.max(x, axis=-1)


PRIMITIVE = Primitive(
    name="largest",
    doc="The largest number of the last axis.",
    example="rule example(lr) { W = W - lr * g / expand_last(1 + largest(abs(g)), g) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.library.largest:largest",
    literal="nldsl.library.largest:largest",
    vjp=_vjp,
    equation="y = max_i x_i",
    reference=_reference,
)
