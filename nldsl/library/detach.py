"""The same value as a constant: no gradient of any level passes."""

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
    "detach",
    "The same value as a constant: no gradient of any level passes.",
    torch="torch:detach",
    vjp=_vjp,
    reference=numpy_function("asarray"),
    example="block example(x, z) { return x + detach(z) }",
    equation="y = x, dy/dx = 0",
)
