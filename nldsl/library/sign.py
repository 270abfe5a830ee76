"""Sign: -1, 0 or 1; its gradient is zero."""

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
    return (None,)


PRIMITIVE = elementwise(
    "sign",
    "Sign: -1, 0 or 1; its gradient is zero.",
    torch="torch:sign",
    vjp=_vjp,
    reference=numpy_function("sign"),
    example="block example(x) { return sign(x) }",
    equation="y = x / |x|, 0 at 0",
)
