"""Forward and backward through a batch: in one pass, or in pieces that hand on nothing but the state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.evaluate import LanguageModel, learns, writes_task
from nldsl.evaluate.bits import PADDING, by_token, learn_labels, targets_of, without_padding
from nldsl.runtime.learning import summed


def backward(model: LanguageModel, tokens: Tensor, truncate: int, share: float = 0.0) -> float:
    """`backward_from` the state of a new sequence; the loss alone."""
    return backward_from(model, tokens, None, truncate, share)[0]


def alone(last: bool) -> AbstractContextManager[None]:
    """Nothing stands around a pass."""
    return nullcontext()


def backward_from(
    model: LanguageModel,
    tokens: Tensor,
    state: Any,
    truncate: int,
    share: float = 0.0,
    around: Callable[[bool], AbstractContextManager[None]] = alone,
) -> tuple[float, Any]:
    """Gradients of `share` times the summed loss of `tokens` `[B, T + 1]`, that number, the state.

    Labelled ones are `[B, T, 2]`: tokens, and what each is scored by.

    A share of 0 makes it the mean.  With `truncate` > 0 back-propagation stops at every `truncate`
    tokens: the state is handed on, its history is not.  Padding (-1) is no target and changes no state.
    `around(last)` is entered for every pass, the last one of this call too.
    """
    total, length = 0.0, tokens.shape[1] - (tokens.dim() != 3)
    share = share or 1 / targets_of(tokens)
    for start in range(0, length, truncate or length):
        stop = min(start + (truncate or length), length)
        with around(stop == length):
            loss, state = one_pass(model, tokens, state, start, stop, share)
        total += float(loss.detach()) * share
        state = state.detach()
    return total, state


def one_pass(
    model: LanguageModel, tokens: Tensor, state: Any, start: int, stop: int, share: float
) -> tuple[Tensor, Any]:
    """Forward and backward through the predictions from `start` to `stop`: the summed loss, the state."""
    if tokens.dim() == 3:
        return learn_labels(model, tokens[:, start:stop], state, share)
    writes = writes_task(model.program)
    # `learn` holds the last token back until its successor, the target, has come.
    first, last = (start + (start > 0), stop + 1) if writes else (start, stop)
    piece, mask = without_padding(tokens[:, first:last])
    if writes:
        return model.learn(piece, state, mask, backward=share)
    logits, state = model(piece, state, mask)
    targets = tokens[:, start + 1 : stop + 1].flatten()
    losses = F.cross_entropy(by_token(logits), targets, reduction="none", ignore_index=PADDING)
    loss = summed(losses)
    torch.autograd.backward(loss * share)
    return loss, state


def gathered_for_the_step(model: Any) -> bool:
    """Whether weights are read outside of the passes of their blocks: in `learn`, and as learned starts."""
    return learns(model.program) or any(t.requires_grad for t in model.init_state(1).tensors().values())
