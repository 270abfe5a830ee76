"""Gaussian error linear unit, the exact form (Hendrycks and Gimpel 2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder
from nldsl.catalog.values import Static
from nldsl.library._elementwise import elementwise


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return (b("gelu_pullback", grad, args[0]),)


def _reference(x: Any) -> Any:
    """x times the normal distribution function."""
    erf = np.vectorize(math.erf, otypes=[float])
    return np.asarray(x) * 0.5 * (1.0 + erf(np.asarray(x) * math.sqrt(0.5)))


PRIMITIVE = elementwise(
    "gelu",
    "Gaussian error linear unit, the exact form (Hendrycks and Gimpel 2016).",
    torch="torch.nn.functional:gelu",
    vjp=_vjp,
    reference=_reference,
    example="block example(x) { return gelu(x) }",
    equation="y = x * (1 + erf(x / sqrt(2))) / 2",
)
