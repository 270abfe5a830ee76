"""Product of two values, element by element."""

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
    x, y = args
    return b("mul", grad, y), b("mul", grad, x)


PRIMITIVE = elementwise(
    "mul",
    "Product of two values, element by element.",
    torch="operator:mul",
    vjp=_vjp,
    reference=numpy_function("multiply"),
    example="block example(x, z) { return x * z }",
    values=("a", "b"),
    equation="y = a * b",
)
