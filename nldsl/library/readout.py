"""One learned number per head: an inner product of each head with its own weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Static
from nldsl.library._shapes import expect, real


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x = operands[0]
    expect(x, ("headed",), "readout", "it gives one number per head; `split` the value first")
    heads, size = x.shape
    start = real(options.get("start", 0.0), "readout", "start")
    weight = ParameterSpec("weight", (heads, size), Initialiser("normal", 0.1), "rest")
    bias = ParameterSpec("bias", (heads,), Initialiser("constant", start), "rest")
    return Outcome((heads,), "heads", (weight, bias))


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    x, weight, _ = args
    return b("mul", grad, weight), b("mul", grad, x), grad


def _reference(x: Any, weight: Any, bias: Any) -> Any:
    """One token."""
    return np.sum(x * weight, axis=-1) + bias


PRIMITIVE = Primitive(
    name="readout",
    doc="One learned number per head: an inner product of each head with its own weight.",
    example="block example(x, heads = 2) { z = split(x, heads); return z * sigmoid(readout(z, start = 2)) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:readout",
    options=(Option("start", 0.0, "value of the bias at the start", runtime=False),),
    vjp=_vjp,
    places=frozenset({"block"}),
    equation="y_h = sum_d x_hd weight_hd + bias_h",
    reference=_reference,
)
