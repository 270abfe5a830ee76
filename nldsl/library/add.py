"""Sum of two values."""

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
    return grad, grad


PRIMITIVE = elementwise(
    "add",
    "Sum of two values.",
    torch="operator:add",
    vjp=_vjp,
    reference=numpy_function("add"),
    example="block example(x, z) { return x + z }",
    values=("a", "b"),
    equation="y = a + b",
)
