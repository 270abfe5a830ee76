"""Logistic function; positive, between 0 and 1."""

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
    return (b("mul", grad, b("mul", out, b("sub", b(1.0), out))),)


def _reference(x: Any) -> Any:
    """Written with tanh, which does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x)))


PRIMITIVE = elementwise(
    "sigmoid",
    "Logistic function; positive, between 0 and 1.",
    torch="torch:sigmoid",
    vjp=_vjp,
    reference=_reference,
    example="block example(x, z) { return x * sigmoid(z) }",
    equation="y = 1 / (1 + e^-x)",
)
