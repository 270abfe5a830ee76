"""The gradient of `gelu` in one step: `grad * gelu'(x)`.

What a memory with a `gelu` inside emits at every write, so it has a kernel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder
from nldsl.catalog.values import Static
from nldsl.library._elementwise import elementwise


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    upstream, x = args
    square = b("mul", x, x)
    # gelu'' = (2 - x^2) times the normal density.
    density = b("mul", b(1.0 / math.sqrt(2.0 * math.pi)), b("exp", b("mul", b(-0.5), square)))
    bend = b("mul", b("sub", b(2.0), square), density)
    return b("gelu_pullback", grad, x), b("mul", b("mul", upstream, grad), bend)


def _reference(grad: Any, x: Any) -> Any:
    """The product rule on x times the normal distribution function."""
    erf = np.vectorize(math.erf, otypes=[float])
    cumulative = 0.5 * (1.0 + erf(np.asarray(x) * math.sqrt(0.5)))
    density = np.exp(-0.5 * np.asarray(x) ** 2) / math.sqrt(2.0 * math.pi)
    return np.asarray(grad) * (cumulative + np.asarray(x) * density)


PRIMITIVE = replace(
    elementwise(
        "gelu_pullback",
        "The gradient of `gelu` in one step: `grad * gelu'(x)`.",
        torch="nldsl.runtime.ops:gelu_pullback",
        vjp=_vjp,
        reference=_reference,
        example="block example(x) { return gelu(x) }",
        values=("grad", "x"),
        equation="y = grad * (P(x) + x p(x)), P and p the normal distribution and density",
    ),
    places=frozenset(),
)
