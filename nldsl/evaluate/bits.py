"""Bits per byte on held-out text."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.evaluate.contract import LanguageModel, writes_task


def as_tokens(windows: npt.NDArray[np.uint8]) -> Tensor:
    """Bytes as the integer tokens `[B, T]` a model takes."""
    return torch.from_numpy(windows.astype(np.int64))


def next_token_loss(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Mean -ln p of `tokens[:, 1:]` given what stands before, with the state fresh at the window's start.

    A model with memories that minimise the task is run by `learn`, which performs their writes as the
    targets arrive: that is the model which is trained, and a byte is always predicted before it is learnt.
    """
    if writes_task(model.program):
        loss, _ = model.learn(tokens)
        return loss / tokens[:, 1:].numel()
    logits, _ = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def bits_per_byte(model: LanguageModel, windows: npt.NDArray[np.uint8], *, batch: int) -> float:
    """Mean of -log2 p over the predictions of `windows` `[n, length + 1]`, `batch` windows at a time."""
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(windows), batch):
            part = windows[start : start + batch]
            total += float(next_token_loss(model, as_tokens(part)).detach()) * len(part)
    return total / len(windows) / math.log(2)
