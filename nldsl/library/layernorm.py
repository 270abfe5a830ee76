"""Layer normalisation with learned scale and offset (Ba et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Static
from nldsl.library._shapes import expect, last_axis


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x = operands[0]
    expect(x, ("vector", "heads", "headed"), "layernorm", "it normalises the last axis of one token")
    size = last_axis(x, "layernorm")
    weight = ParameterSpec("weight", (size,), Initialiser("constant", 1.0), "norm")
    bias = ParameterSpec("bias", (size,), Initialiser("constant", 0.0), "norm")
    return Outcome(x.shape, x.kind, (weight, bias))


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    x, weight, _ = args
    centred = b("sub", x, b("mean", x))
    scale = b("pow", b("add", b("mean", b("mul", centred, centred)), b(float(options["eps"]))), b(-0.5))  # type: ignore[arg-type]
    unit = b("mul", centred, scale)
    inner = b("mul", grad, weight)
    flat = b("sub", inner, b("mean", inner))
    back = b("mul", b("sub", flat, b("mul", unit, b("mean", b("mul", inner, unit)))), scale)
    return back, b("mul", grad, unit), grad


def _reference(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """One token; the heads share weight and bias."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + eps) * weight + bias


PRIMITIVE = Primitive(
    name="layernorm",
    doc="Layer normalisation with learned scale and offset (Ba et al. 2016).",
    example="block example(x) { return layernorm(x) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:layernorm",
    options=(Option("eps", 1e-5, "keeps a zero input finite", minimum=0.0),),
    vjp=_vjp,
    places=frozenset({"block", "map"}),
    equation="y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias",
    reference=_reference,
)
