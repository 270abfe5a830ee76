"""Square root."""

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
    return (b("div", b("mul", b(0.5), grad), out),)


PRIMITIVE = elementwise(
    "sqrt",
    "Square root.",
    torch="torch:sqrt",
    vjp=_vjp,
    reference=numpy_function("sqrt"),
    example="block example(x) { return sqrt(1 + x ** 2) }",
    equation="y = x^(1/2)",
)
