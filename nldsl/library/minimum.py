"""The smaller of two values, element by element."""

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
    # Equal values share the gradient.
    share = b("add", b("lt", x, y), b("mul", b(0.5), b("eq", x, y)))
    return b("mul", grad, share), b("mul", grad, b("sub", b(1.0), share))


PRIMITIVE = elementwise(
    "minimum",
    "The smaller of two values, element by element.",
    torch="nldsl.runtime.ops:minimum",
    vjp=_vjp,
    reference=numpy_function("minimum"),
    example="block example(x, z) { return minimum(x, z) }",
    values=("a", "b"),
    equation="y = min(a, b)",
)
