"""One where a count is a multiple of a number, else zero; what `every N steps` in a rule asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, ContractError, Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    whole(options["of"], "multiple_of", "of")
    if operands[0].shape:
        raise ContractError(f"`multiple_of` expected a count, found a {describe(operands[0])}")
    return Outcome((), "scalar")


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return (None,)


def _reference(x: Any, *, of: int) -> Any:
    """Zero is a multiple of every number."""
    return np.where(np.mod(x, of) == 0, 1.0, 0.0)


PRIMITIVE = Primitive(
    name="multiple_of",
    doc="One where a count is a multiple of a number, else zero; what `every N steps` in a rule asks.",
    example="rule example(lr) { W = W - lr * multiple_of(step, 2) * g }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:multiple_of",
    options=(Option("of", "REQUIRED", "the number", "", 1, type="int"),),
    vjp=_vjp,
    places=frozenset({"rule"}),
    equation="y = 1 if x mod n = 0 else 0",
    reference=_reference,
)
