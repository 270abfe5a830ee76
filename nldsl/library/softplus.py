"""Smooth positive part; always positive."""

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
    return (b("mul", grad, b("sigmoid", args[0])),)


def _reference(x: Any) -> Any:
    """Exact for large x as well."""
    return np.logaddexp(x, 0.0)


PRIMITIVE = elementwise(
    "softplus",
    "Smooth positive part; always positive.",
    torch="nldsl.runtime.ops:softplus",
    vjp=_vjp,
    reference=_reference,
    example="block example(x) { return softplus(x) }",
    equation="y = ln(1 + e^x)",
)
