"""Error function."""

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
    bell = b("exp", b("neg", b("mul", args[0], args[0])))
    return (b("mul", grad, b("mul", b(2.0 / math.sqrt(math.pi)), bell)),)


def _reference(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[float])(x)


PRIMITIVE = elementwise(
    "erf",
    "Error function.",
    torch="torch:erf",
    vjp=_vjp,
    reference=_reference,
    example="block example(x) { return erf(x) }",
    equation="y = 2 / sqrt(pi) * integral of e^(-t^2) from 0 to x",
)
