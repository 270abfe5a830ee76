"""Swap the axes of a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x = operands[0]
    expect(x, ("matrix",), "transpose", "only a matrix has two axes to swap")
    return Outcome((x.shape[1], x.shape[0]), "matrix")


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return (b("transpose", grad),)


def _reference(x: Any) -> Any:
    """One matrix."""
    return np.transpose(x)


PRIMITIVE = Primitive(
    name="transpose",
    doc="Swap the axes of a matrix.",
    example="rule example(lr) { W = W - lr * transpose(transpose(g)) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:transpose",
    vjp=_vjp,
    equation="y_ij = x_ji",
    reference=_reference,
)
