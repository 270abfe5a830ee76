"""Root mean square normalisation with a learned scale (Zhang and Sennrich 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Static
from nldsl.library._shapes import expect, last_axis


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x = operands[0]
    expect(x, ("vector", "heads", "headed"), "norm", "it normalises the last axis of one token")
    size = last_axis(x, "norm")
    weight = ParameterSpec("weight", (size,), Initialiser("constant", 1.0), "norm")
    return Outcome(x.shape, x.kind, (weight,))


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    x, weight = args
    scale = b("pow", b("add", b("mean", b("mul", x, x)), b(float(options["eps"]))), b(-0.5))  # type: ignore[arg-type]
    unit = b("mul", x, scale)
    inner = b("mul", grad, weight)
    back = b("mul", b("sub", inner, b("mul", unit, b("mean", b("mul", inner, unit)))), scale)
    return back, b("mul", grad, unit)


def _reference(x: Any, weight: Any, *, eps: float) -> Any:
    """One token; the heads share the weight."""
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


PRIMITIVE = Primitive(
    name="norm",
    doc="Root mean square normalisation with a learned scale (Zhang and Sennrich 2019).",
    example="block example(x) { return norm(x) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:norm",
    options=(Option("eps", 1e-6, "keeps a zero input finite", minimum=0.0),),
    vjp=_vjp,
    places=frozenset({"block", "map"}),
    equation="y = x / sqrt(mean(x^2) + eps) * weight",
    reference=_reference,
)
