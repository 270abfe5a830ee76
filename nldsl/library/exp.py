"""Exponential."""

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
    return (b("mul", grad, out),)


PRIMITIVE = elementwise(
    "exp",
    "Exponential.",
    torch="torch:exp",
    vjp=_vjp,
    reference=numpy_function("exp"),
    example="block example(x) { return exp(-x ** 2) }",
    equation="y = e^x",
)
