"""Rotary positions stretched over longer contexts (Chen et al. 2023; the form of Llama 3.1).

The reference takes the position explicitly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import ContractError, Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect, real


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x = operands[0]
    expect(x, ("vector", "headed"), "stretched_rope", "it rotates pairs of channels")
    if x.shape[-1] % 2:
        raise ContractError(f"`stretched_rope` expected an even last axis, found {describe(x)}")
    for name in ("base", "factor"):
        if real(options[name], "stretched_rope", name) <= 0:
            raise ContractError(f"`{name}` of `stretched_rope` must be positive")
    low, high, original = (real(options[n], "stretched_rope", n) for n in ("low", "high", "original"))
    if original > 0 and not 0 < low < high:
        raise ContractError("`stretched_rope` with `original` needs 0 < `low` < `high`")
    return Outcome(x.shape, x.kind)


def _reference(
    x: Any, *, base: float, factor: float, low: float, high: float, original: float, position: float
) -> Any:
    """One token at `position`."""
    half = x.shape[-1] // 2
    frequency = base ** (-np.arange(half) / half)
    kept = np.zeros(half)
    if original:
        kept = np.clip((original * frequency / (2 * np.pi) - low) / (high - low), 0.0, 1.0)
    angle = position * frequency * (kept + (1 - kept) / factor)
    first, second = x[..., :half], x[..., half:]
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


PRIMITIVE = Primitive(
    name="stretched_rope",
    doc="Rotary positions stretched over longer contexts: slow frequencies are divided by `factor`.",
    example="block example(x, heads = 2) { return stretched_rope(split(x, heads), factor = 8) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:stretched_rope",
    options=(
        Option("base", 10000.0, "longest wavelength over two pi", "tokens", 0.0),
        Option("factor", 1.0, "what slow frequencies are divided by", minimum=0.0),
        Option("low", 0.0, "waves longer than `original / low` are stretched whole", minimum=0.0),
        Option("high", 0.0, "waves shorter than `original / high` are kept", minimum=0.0),
        Option("original", 0.0, "the context before stretching; 0 stretches every wave", "tokens", 0.0),
    ),
    stateful=True,
    places=frozenset({"block"}),
    equation="rope at f (s + (1 - s) / factor), s = clip((original f / 2 pi - low) / (high - low), 0, 1)",
    reference=_reference,
)
