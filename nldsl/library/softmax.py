"""Positive numbers along the last axis that sum to one.

As the map of a memory, `softmax(window, start, causal)` is attention; that one is no function of a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Outcome, Primitive
from nldsl.catalog.values import Kind, Static
from nldsl.library._shapes import expect, last_axis


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    kinds: tuple[Kind, ...] = ("vector", "heads", "headed", "matrix")
    expect(operands[0], kinds, "softmax", "it acts on the last axis of one token")
    last_axis(operands[0], "softmax")
    return Outcome(operands[0].shape, operands[0].kind)


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    shared = b("sum", b("mul", grad, out))
    if b.operand(out).kind == "matrix":
        shared = b("expand_last", shared, out)
    return (b("mul", out, b("sub", grad, shared)),)


def _reference(x: Any) -> Any:
    """One token, shifted by the largest entry."""
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


PRIMITIVE = Primitive(
    name="softmax",
    doc="Positive numbers along the last axis that sum to one.",
    example="block example(x) { return softmax(x) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:softmax",
    vjp=_vjp,
    equation="y_i = e^x_i / sum_j e^x_j",
    reference=_reference,
)
