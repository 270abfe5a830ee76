"""Inner product over the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import without_last


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    left, right = operands
    if left.shape != right.shape or "matrix" in (left.kind, right.kind):
        raise ContractError(
            f"`dot` expected two vectors of one size, found a {describe(left)} and a {describe(right)}"
        )
    best = left if left.kind != "vector" else right
    return Outcome(*without_last(best, "dot"))


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    x, y = args
    return b("mul", grad, y), b("mul", grad, x)


def _reference(a: Any, b: Any) -> Any:
    """Headed values give one number per head."""
    return np.sum(a * b, axis=-1)


PRIMITIVE = Primitive(
    name="dot",
    doc="Inner product over the last axis.",
    example="block example(x, z) { return x * dot(x, z) }",
    values=("a", "b"),
    shape=_shape,
    torch="nldsl.runtime.ops:dot",
    vjp=_vjp,
    equation="y = sum_i a_i b_i",
    reference=_reference,
)
