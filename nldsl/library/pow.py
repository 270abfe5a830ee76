"""First value to the power of the second, element by element."""

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
    base = b("mul", grad, b("mul", y, b("pow", x, b("sub", y, b(1.0)))))
    # 0 ** y does not depend on y where it is defined; log(0) must not reach the product.
    slope = b("where", b("eq", x, b(0.0)), b(0.0), b("mul", out, b("log", x)))
    return base, b("mul", grad, slope)


PRIMITIVE = elementwise(
    "pow",
    "First value to the power of the second, element by element.",
    torch="operator:pow",
    vjp=_vjp,
    reference=numpy_function("power"),
    example="block example(x) { return x ** 2 }",
    values=("a", "b"),
    equation="y = a ** b",
)
