"""What the elementwise primitives share: one shape rule, and how to declare one in a line or two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nldsl.catalog.broadcast import broadcast
from nldsl.catalog.primitive import Operand, Outcome, Primitive, ShapeRule, Vjp
from nldsl.catalog.values import Static


def shape_rule(name: str) -> ShapeRule:
    """The broadcasting rule as the shape rule of primitive `name`."""

    def shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
        result = broadcast(operands, name)
        return Outcome(result.shape, result.kind)

    return shape


def elementwise(
    name: str,
    doc: str,
    *,
    torch: str,
    vjp: Vjp,
    reference: Callable[..., Any],
    example: str,
    values: tuple[str, ...] = ("x",),
    equation: str = "",
) -> Primitive:
    """A primitive that acts on every element alike and has no options.

    The reference takes arrays that are already aligned (see `catalog.broadcast`).
    """
    return Primitive(
        name=name,
        doc=doc,
        example=example,
        values=values,
        shape=shape_rule(name),
        torch=torch,
        vjp=vjp,
        elementwise=True,
        equation=equation,
        reference=reference,
    )
