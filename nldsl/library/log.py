"""Natural logarithm."""

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
    return (b("div", grad, args[0]),)


PRIMITIVE = elementwise(
    "log",
    "Natural logarithm.",
    torch="torch:log",
    vjp=_vjp,
    reference=numpy_function("log"),
    example="block example(x) { return log(1 + x ** 2) }",
    equation="y = ln x",
)
