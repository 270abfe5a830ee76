"""The last lessons of a memory: what `over c tokens` looks back upon (Omega rule, Eq. 68)."""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.runtime.sequence import taken, with_past
from nldsl.runtime.token import step_numbers, tick_all

Lessons = dict[str, Tensor]
"""`key [B, H, c - 1, K]`, `target`, `weight [B, H, c - 1]`, oldest first; `H` only per head."""


def past_lessons(
    key: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    state: Lessons,
    count: Tensor,
    mask: Tensor | None,
    reset: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Lessons]:
    """The lessons of the last c tokens of every token, oldest first, and those to remember.

    `key [B, T, H, K]`, `target [B, T, H, V]`, `weight [B, T, H, 1]`; the answers are
    `[B, T, H, c, K]` and so on, or shorter where no sample has seen as many tokens (`count [B]` before this
    call).  A lesson that has not been has weight zero; it stands there as the present one, so that whatever
    is computed of its key is finite.  With a `reset` all are forgotten behind every so many tokens.

    >>> x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    >>> none = torch.zeros(1, 1, 1, 1)
    >>> empty, seen = {"key": none, "target": none, "weight": none[0]}, torch.tensor([0])
    >>> keys, _, weights, after = past_lessons(x, x, torch.ones_like(x), state=empty, count=seen, mask=None)
    >>> keys.flatten().tolist(), weights.flatten().tolist(), after["key"].item()
    ([1.0, 1.0, 1.0, 2.0], [0.0, 1.0, 1.0, 1.0], 2.0)
    """
    per_head = state["key"].dim() == 4
    there = _there(state["weight"].shape[-1] + 1, key.shape[1], count)
    kept: Lessons = {}
    found = {}
    for name, present in (("key", key), ("target", target), ("weight", weight)):
        tail = state[name].unsqueeze(-1) if name == "weight" else state[name]
        tail = tail.transpose(1, 2) if per_head else tail.unsqueeze(2)
        windows, last = _windows(present, tail, mask)
        last = last.transpose(1, 2) if per_head else last.squeeze(2)
        kept[name] = last.squeeze(-1) if name == "weight" else last
        found[name] = windows[:, :, :, windows.shape[3] - there :]
    if reset:
        found["weight"] = _since(found["weight"], step_numbers(count, mask, key, reset=reset))
        kept = {name: _begun_anew(x, tick_all(count, mask, key) % reset, name) for name, x in kept.items()}
    absent = found["weight"] == 0
    keys = torch.where(absent, key.unsqueeze(3), found["key"])
    targets = torch.where(absent, target.unsqueeze(3), found["target"])
    return keys, targets, found["weight"], kept


def _since(weight: Tensor, age: Tensor) -> Tensor:
    """The weights `[B, T, H, c, 1]` without those of more than `age [B, T]` tokens."""
    size = weight.shape[3]
    ago = torch.arange(size - 1, -1, -1, device=weight.device).unsqueeze(-1)
    return weight.masked_fill(ago >= age[:, :, None, None, None], 0.0)


def _begun_anew(kept: Tensor, age: Tensor, name: str) -> Tensor:
    """What is remembered without what is more than `age [B]` tokens old, which is as at the start."""
    axis = kept.dim() - (1 if name == "weight" else 2)
    size = kept.shape[axis]
    ago = torch.arange(size - 1, -1, -1, device=kept.device).view(-1, *(1,) * (kept.dim() - 1 - axis))
    old = ago >= age.view(-1, *(1,) * (kept.dim() - 1))
    return kept.masked_fill(old, 0.0 if name == "weight" else 1.0)


def _there(window: int, tokens: int, count: Tensor) -> int:
    """How many lessons of a window may have been; all where code is traced for any state."""
    if torch.compiler.is_compiling() or not count.numel():
        return window
    return max(1, min(window, int(count.max()) + tokens))


def _windows(present: Tensor, tail: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The last c rows of every token of `[B, T, H, n]`, `[B, T, H, c, n]`, and the new `[B, c - 1, H, n]`."""
    seen, order, last = with_past(present, tail, mask)
    size = tail.shape[1] + 1
    if not present.shape[1]:
        return present.unsqueeze(3).expand(*present.shape[:3], size, -1), last
    windows = seen.unfold(1, size, 1).movedim(-1, 3)
    return windows if order is None else taken(windows, order.argsort(1)), last
