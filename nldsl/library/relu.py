"""Positive part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder
from nldsl.catalog.values import Static
from nldsl.library._elementwise import elementwise


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return (b("mul", grad, b("gt", args[0], b(0.0))),)


def _reference(x: Any) -> Any:
    """The larger of x and zero."""
    return np.maximum(x, 0.0)


PRIMITIVE = elementwise(
    "relu",
    "Positive part.",
    torch="torch:relu",
    vjp=_vjp,
    reference=_reference,
    example="block example(x) { return relu(x) }",
    equation="y = max(x, 0)",
)
