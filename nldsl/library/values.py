"""Mark a gate as one number per value channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    expect(operands[0], ("vector", "headed"), "values", "a value-channel gate has one number per channel")
    return Outcome(operands[0].shape, operands[0].kind)


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return (grad,)


def _reference(x: Any) -> Any:
    """The same numbers; only the meaning of the axis changes."""
    return np.asarray(x)


PRIMITIVE = Primitive(
    name="values",
    doc="Mark a gate as one number per value channel.",
    example="block example(x, heads = 2) { level m every 1 token { memory S = matrix() per head }; "
    "S *= values(split(sigmoid(linear(x)), heads)); S[x] <- x minimize dot by gd(lr = 0.1); return S[x] }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:values",
    vjp=_vjp,
    folded=True,
    places=frozenset({"block"}),
    equation="y = x",
    reference=_reference,
)
