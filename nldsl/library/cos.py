"""Cosine."""

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
    return (b("neg", b("mul", grad, b("sin", args[0]))),)


PRIMITIVE = elementwise(
    "cos",
    "Cosine.",
    torch="torch:cos",
    vjp=_vjp,
    reference=numpy_function("cos"),
    example="block example(x) { return cos(x) }",
    equation="y = cos x",
)
