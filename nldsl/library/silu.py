"""Sigmoid linear unit (swish)."""

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
    return (b("silu_pullback", grad, args[0]),)


def _reference(x: Any) -> Any:
    """x times its logistic function."""
    return np.asarray(x) * 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x)))


PRIMITIVE = elementwise(
    "silu",
    "Sigmoid linear unit (swish).",
    torch="torch.nn.functional:silu",
    vjp=_vjp,
    reference=_reference,
    example="block example(x) { return silu(x) }",
    equation="y = x / (1 + e^-x)",
)
