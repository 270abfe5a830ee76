"""Bits per byte on held-out text, or per label; accuracy.

Windows `[n, T + 1]` hold tokens, each of which but the first is a target; labelled windows `[n, T, 2]` hold
tokens, each with the label that is its target.  Padding is -1, and so is the label of a token without one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.evaluate.contract import LanguageModel, device_of, writes_task
from nldsl.runtime.learning import summed

Windows = npt.NDArray[np.integer[Any]]
PADDING = -1
"""Behind the end of a document that is shorter than its window."""


def as_tokens(windows: Windows) -> Tensor:
    """Windows as the integer tokens `[B, T]` a model takes; padding stays -1."""
    return torch.from_numpy(windows.astype(np.int64))


def without_padding(tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens with 0 where there is padding, and the mask of what is none (`None` if there is no padding).

    Example:
        >>> without_padding(torch.tensor([[7, 8, -1]]))
        (tensor([[7, 8, 0]]), tensor([[ True,  True, False]]))
    """
    mask = tokens != PADDING
    return (tokens, None) if bool(mask.all()) else (tokens.clamp_min(0), mask)


def by_token(logits: Tensor) -> Tensor:
    """Logits `[B, T, V]` as rows, at least in float32.

    Example:
        >>> by_token(torch.zeros(2, 3, 4, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    rows = logits.flatten(0, 1)
    return rows if rows.dtype == torch.float64 else rows.float()


def summed_loss(model: LanguageModel, tokens: Tensor) -> Tensor:
    """The sum of -ln p of `tokens[:, 1:]` given what stands before, the state fresh at a window's start.

    A model with memories that minimise the task is run by `learn`, which performs their writes as the
    targets arrive: that is the model which is trained, and a byte is always predicted before it is learnt.
    Of labelled windows `[B, T, 2]` it is the sum over labels.
    """
    tokens = tokens.to(device_of(model))
    if tokens.dim() == 3:
        return learn_labels(model, tokens)[0]
    if writes_task(model.program):
        return model.learn(tokens.clamp_min(0), None, without_padding(tokens)[1])[0]
    inputs, mask = without_padding(tokens[:, :-1])
    logits, _ = model(inputs, None, mask)
    targets = tokens[:, 1:].flatten()
    return summed(F.cross_entropy(by_token(logits), targets, reduction="none", ignore_index=PADDING))


def learn_labels(
    model: LanguageModel, windows: Tensor, state: Any = None, backward: float = 0.0
) -> tuple[Tensor, Any]:
    """`learn` on labelled windows `[B, T, 2]`: the summed loss, and the state behind them."""
    tokens, mask = without_padding(windows[..., 0])
    return model.learn(tokens, state, mask, backward=backward, label=windows[..., 1])


def read_labels(model: Any, windows: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """The logits of labelled windows `[B, T, 2]` without task writes, and the state behind them."""
    tokens, mask = without_padding(windows[..., 0])
    # The streams in the order in which the model declares them.
    given = {value.name: tokens for value in model.program.root.inputs} | {"label": windows[..., 1]}
    logits, behind = model(*given.values(), state, mask)
    return logits, behind


def next_token_loss(model: LanguageModel, tokens: Tensor) -> Tensor:
    """The mean that belongs to `summed_loss`."""
    return summed_loss(model, tokens) / targets_of(tokens)


def targets_of(tokens: Tensor) -> int:
    """How many predictions windows hold.

    Example:
        >>> targets_of(torch.tensor([[7, 8, -1]])), targets_of(torch.tensor([[[7, -1], [8, 2], [-1, -1]]]))
        (1, 1)
    """
    return int(((tokens[..., 1] if tokens.dim() == 3 else tokens[:, 1:]) != PADDING).sum())


def bits_per_byte(model: LanguageModel, windows: Windows, *, batch: int) -> float:
    """Mean of -log2 p over the predictions of `windows` `[n, length + 1]`, `batch` windows at a time."""
    bits, count = summed_bits(model, windows, batch=batch)
    return bits / count


def summed_bits(model: LanguageModel, windows: Windows, *, batch: int) -> tuple[float, int]:
    """The sum of -log2 p over the predictions of `windows`, and how many they are."""
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(windows), batch):
            part = as_tokens(windows[start : start + batch])
            total += float(summed_loss(model, part).detach())
            count += targets_of(part)
    return total / math.log(2), count


def summed_hits(model: LanguageModel, windows: Windows, *, batch: int) -> tuple[int, int, int]:
    """Of labelled windows: how many labels were the likeliest class, of how many last labels, and windows.

    The last label of a window knows most of its document.
    """
    hits = last = whole = 0
    with torch.no_grad():
        for start in range(0, len(windows), batch):
            part = as_tokens(windows[start : start + batch]).to(device_of(model))
            right, has = learn_labels(model, part)[1].right, part[..., 1] >= 0
            ends = has & (has.flip(1).cumsum(1).flip(1) == 1)
            hits += int(right.sum())
            last += int((right & ends).sum())
            whole += int(ends.sum())
    return hits, last, whole
