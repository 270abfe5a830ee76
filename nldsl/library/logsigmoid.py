"""Logarithm of the logistic function, without underflow."""

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
    return (b("mul", grad, b("sigmoid", b("neg", args[0]))),)


def _reference(x: Any) -> Any:
    """-softplus(-x)."""
    return -np.logaddexp(-np.asarray(x), 0.0)


PRIMITIVE = elementwise(
    "logsigmoid",
    "Logarithm of the logistic function, without underflow.",
    torch="torch.nn.functional:logsigmoid",
    vjp=_vjp,
    reference=_reference,
    example="block example(x) { return logsigmoid(x) }",
    equation="y = -ln(1 + e^-x)",
)
