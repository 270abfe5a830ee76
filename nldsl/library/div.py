"""Quotient of two values, element by element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import numpy_function
from nldsl.catalog.primitive import Builder
from nldsl.catalog.values import Static
from nldsl.library._elementwise import elementwise


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    y = args[1]
    return b("div", grad, y), b("neg", b("div", b("mul", grad, out), y))


PRIMITIVE = elementwise(
    "div",
    "Quotient of two values, element by element.",
    torch="operator:truediv",
    vjp=_vjp,
    reference=numpy_function("divide"),
    example="block example(x, z) { return x / (1 + z ** 2) }",
    values=("a", "b"),
    equation="y = a / b",
)
