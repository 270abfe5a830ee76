"""Primitives that remember: `conv`, `shift`, `position`, `rope`.

Their state belongs to one sample: the last inputs (zeros before the sequence starts), and the number
of unmasked tokens seen since the reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.spec.program import Apply, option

HIDDEN = frozenset({"conv", "shift", "position", "rope"})


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


def rope(x: Tensor, position: int, base: float) -> Tensor:
    """Rotate the pairs `(i, i + d/2)` of the last axis by `position * base^(-2i/d)`."""
    half = x.shape[-1] // 2
    angle = position * base ** (-torch.arange(half, dtype=x.dtype) / half)
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
    if statement.op == "rope":
        return rope(args[0], position, float(_static(statement, "base", 10000))), tail
    x = args[0].reshape(-1) if statement.op == "conv" else args[0]
    inputs = [*tail, x]
    if statement.op == "conv":
        return conv(inputs, own[0], own[1] if len(own) > 1 else None), inputs[1:]
    return inputs[0], inputs[1:]
