"""Rotary position embedding: rotate channel pairs (i, i + d/2) by the position (Su et al. 2021).

Keeps its own count of tokens, as `position` does.  The reference takes the position explicitly.
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
    expect(x, ("vector", "headed"), "rope", "it rotates pairs of channels")
    if x.shape[-1] % 2:
        raise ContractError(f"`rope` expected an even last axis, found {describe(x)}")
    if real(options.get("base", 10000.0), "rope", "base") <= 0:
        raise ContractError("`base` of `rope` must be positive")
    return Outcome(x.shape, x.kind)


def _reference(x: Any, *, base: float, position: float) -> Any:
    """One token at `position`."""
    half = x.shape[-1] // 2
    angle = position * base ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


PRIMITIVE = Primitive(
    name="rope",
    doc="Rotary position embedding: rotate channel pairs (i, i + d/2) by the position (Su et al. 2021).",
    example="block example(x, heads = 2) { return rope(split(x, heads)) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:rope",
    options=(Option("base", 10000.0, "longest wavelength over two pi", "tokens", 0.0),),
    stateful=True,
    places=frozenset({"block"}),
    equation="(x_i, x_{i+d/2}) rotated by t * base^(-2 i / d)",
    reference=_reference,
)
