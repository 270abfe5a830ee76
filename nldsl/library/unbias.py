"""Correct a running mean for its start at zero: `unbias(m, beta)`; the elaborator adds `step`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.primitive import Builder, ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    mean, *scalars = operands
    for x in scalars:
        if x.shape:
            raise ContractError(f"`unbias` expected a number as rate, found a {describe(x)}")
    return Outcome(mean.shape, mean.kind)


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    _, beta, step = args
    left = b("sub", b(1.0), b("pow", beta, step))
    slope = b("div", b("mul", step, b("pow", beta, b("sub", step, b(1.0)))), left)
    return b("div", grad, left), b("mul", grad, b("mul", out, slope)), None


def _reference(m: Any, beta: Any, step: Any) -> Any:
    """`step` is one in the first application."""
    return m / (1.0 - beta**step)


PRIMITIVE = Primitive(
    name="unbias",
    doc="Correct a running mean for its start at zero: `unbias(m, beta)`; the elaborator adds `step`.",
    example="rule example(lr, b = 0.9) { memory m = like(W); m += (1 - b) * g; W -= lr * unbias(m, b) }",
    values=("m", "beta", "step"),
    shape=_shape,
    torch="nldsl.runtime.ops:unbias",
    vjp=_vjp,
    optional_values=1,
    places=frozenset({"rule"}),
    equation="y = m / (1 - beta^step)",
    reference=_reference,
)
