"""Scale the last axis to unit Euclidean length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect, last_axis


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    expect(operands[0], ("vector", "heads", "headed"), "l2norm", "rows of a matrix are scaled by `rownorm`")
    last_axis(operands[0], "l2norm")
    return Outcome(operands[0].shape, operands[0].kind)


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    x = args[0]
    scale = b("pow", b("add", b("sum", b("mul", x, x)), b(float(options["eps"]))), b(-0.5))  # type: ignore[arg-type]
    return (b("mul", b("sub", grad, b("mul", out, b("sum", b("mul", grad, out)))), scale),)


def _reference(x: Any, *, eps: float) -> Any:
    """One token."""
    return x / np.sqrt(np.sum(x**2, axis=-1, keepdims=True) + eps)


PRIMITIVE = Primitive(
    name="l2norm",
    doc="Scale the last axis to unit Euclidean length.",
    example="block example(x) { return l2norm(x) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:l2norm",
    options=(Option("eps", 1e-6, "keeps a zero input finite", minimum=0.0),),
    vjp=_vjp,
    equation="y = x / sqrt(sum(x^2) + eps)",
    reference=_reference,
)
