"""Repeat a value along a new last axis, to the shape of another (the reverse of `sum`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import without_last


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    value, like = operands
    expected, _ = without_last(like, "expand_last")
    if value.shape != expected:
        raise ContractError(f"`expand_last` expected shape {expected}, found {value.shape}")
    return Outcome(like.shape, like.kind)


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return b("sum", grad), None


def _reference(x: Any, like: Any) -> Any:
    """Only the shape of `like` is used."""
    return np.broadcast_to(np.asarray(x)[..., None], np.shape(like))


PRIMITIVE = Primitive(
    name="expand_last",
    doc="Repeat a value along a new last axis, to the shape of another (the reverse of `sum`).",
    example="rule example(lr) { W = W - lr * (g - expand_last(mean(g), g)) }",
    values=("x", "like"),
    shape=_shape,
    torch="nldsl.runtime.ops:expand_last",
    vjp=_vjp,
    places=frozenset({"rule"}),
    equation="y_..i = x_..",
    reference=_reference,
)
