"""The negative of a value."""

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
    return (b("neg", grad),)


PRIMITIVE = elementwise(
    "neg",
    "The negative of a value.",
    torch="operator:neg",
    vjp=_vjp,
    reference=numpy_function("negative"),
    example="block example(x) { return -x }",
    equation="y = -x",
)
