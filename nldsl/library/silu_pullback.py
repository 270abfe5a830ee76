"""The gradient of `silu` in one step: `grad * silu'(x)`.

What a memory with a `silu` inside emits at every write, so it has a kernel of its own.
"""

from __future__ import annotations

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
    through = b("silu_pullback", grad, x)
    # silu'' = s + silu' - 2 s silu', and `grad silu'` is there already.
    bend = b("add", through, b("mul", b("sigmoid", x), b("sub", grad, b("mul", b(2.0), through))))
    return through, b("mul", upstream, bend)


def _reference(grad: Any, x: Any) -> Any:
    """The product rule on x times its logistic function."""
    gate = 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x)))
    return np.asarray(grad) * gate * (1.0 + np.asarray(x) * (1.0 - gate))


PRIMITIVE = replace(
    elementwise(
        "silu_pullback",
        "The gradient of `silu` in one step: `grad * silu'(x)`.",
        torch="nldsl.runtime.ops:silu_pullback",
        vjp=_vjp,
        reference=_reference,
        example="block example(x) { return silu(x) }",
        values=("grad", "x"),
        equation="y = grad * s (1 + x (1 - s)), s = sigmoid(x)",
    ),
    places=frozenset(),
)
