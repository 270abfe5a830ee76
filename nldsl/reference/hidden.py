"""Primitives that remember: `conv`, `shift`, `position`, `add_position`, `rope`, `stretched_rope`.

Their state belongs to one sample: the last inputs (zeros before the sequence starts), and the number
of unmasked tokens seen since the reset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.spec.program import Apply, option

HIDDEN = frozenset({"conv", "shift", "position", "add_position", "rope", "stretched_rope"})


def tail_length(statement: Apply) -> int:
    """How many past inputs the primitive keeps."""
    if statement.op == "conv":
        return int(_static(statement, "window", 1)) - 1
    return int(_static(statement, "by", 1)) if statement.op == "shift" else 0


def _static(statement: Apply, name: str, default: Any) -> Any:
    value = option(statement.options, name, default)
    return default if value is None else value


def conv(inputs: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """`y[c] = bias[c] + sum_j weight[c, j] x_{t-window+1+j}[c]`, oldest input first."""
    y = sum((weight[:, j] * x for j, x in enumerate(inputs)), torch.zeros_like(inputs[-1]))
    return y if bias is None else y + bias


def stretched(wave: float, factor: float, low: float, high: float, original: float) -> float:
    """How much slower a wave of so many tokens turns: not at all if it is short, `factor` times if long."""
    if not original or wave > original / low:
        return factor
    if wave < original / high:
        return 1.0
    share = (original / wave - low) / (high - low)
    return 1 / (share + (1 - share) / factor)


def rope(x: Tensor, position: int, base: float, slower: Callable[[float], float] = lambda _: 1.0) -> Tensor:
    """Rotate the pairs `(i, i + d/2)` of the last axis by `position * base^(-2i/d) / slower(wave)`."""
    half = x.shape[-1] // 2
    turns = [base ** (-i / half) for i in range(half)]
    turns = [f / slower(math.tau / f) for f in turns]
    angle = position * torch.tensor(turns, dtype=x.dtype)
    a, b = x[..., :half], x[..., half:]
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)


def step(
    statement: Apply,
    args: Sequence[Tensor],
    own: Sequence[Tensor],
    tail: list[Tensor],
    position: int,
    dtype: Any,
) -> tuple[Tensor, list[Tensor]]:
    """The value of a remembering primitive at one token, and its inputs kept for the next."""
    if statement.op == "position":
        return torch.tensor(float(position), dtype=dtype), tail
    if statement.op == "add_position":
        return args[0] + own[0][min(position, own[0].shape[0] - 1)], tail
    if statement.op == "rope":
        return rope(args[0], position, float(_static(statement, "base", 10000))), tail
    if statement.op == "stretched_rope":
        names = ("factor", "low", "high", "original")
        factor, low, high, original = (float(_static(statement, n, 1 if n == "factor" else 0)) for n in names)
        base = float(_static(statement, "base", 10000))
        return rope(args[0], position, base, lambda wave: stretched(wave, factor, low, high, original)), tail
    x = args[0].reshape(-1) if statement.op == "conv" else args[0]
    inputs = [*tail, x]
    if statement.op == "conv":
        return conv(inputs, own[0], own[1] if len(own) > 1 else None), inputs[1:]
    return inputs[0], inputs[1:]
