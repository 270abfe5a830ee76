"""What a token asked of a memory, kept as long as it stands in the window of later tokens (Omega rule).

`over c tokens weighted gamma` takes the gradients of the last c tokens anew at the present base, so
the state keeps the last c - 1 keys and targets `[B, ..., c - 1, d]` and weights `[B, ..., c - 1]`.  Before
the first token all weights are zero.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


def with_earlier(kept: Tensor, now: Tensor) -> Tensor:
    """The lessons of the windows of a chunk: the kept ones, then its tokens' `[B, ..., C, d]`.

    >>> with_earlier(torch.zeros(1, 2, 3), torch.ones(1, 4, 3)).shape
    torch.Size([1, 6, 3])
    """
    return torch.cat([kept, now.expand(*kept.shape[:-2], *now.shape[-2:])], -2)


def with_earlier_weights(kept: Tensor, now: Tensor | float, like: Tensor) -> Tensor:
    """The same for weights `[B, ..., C]`, or one number for all; `like [B, ..., C, d]`."""
    rows = torch.as_tensor(now, dtype=kept.dtype, device=kept.device)
    return torch.cat([kept, rows.expand(*kept.shape[:-1], like.shape[-2])], -1)


def last_lessons(lessons: Tensor, keep: int, valid: Tensor | None, *, axis: int = -2) -> Tensor:
    """The last `keep` lessons behind the tokens that count (`valid [B, C]`: those stand in front).

    >>> last_lessons(torch.arange(5.0).view(1, 5), 2, torch.tensor([[True, True, False]]), axis=-1)
    tensor([[2., 3.]])
    """
    if valid is None:
        return lessons.narrow(axis, lessons.shape[axis] - keep, keep)
    first = valid.sum(1).view(-1, *(1,) * (lessons.dim() - 1))
    shape = list(lessons.shape)
    shape[axis] = keep
    places = torch.arange(keep, device=lessons.device)
    places = places if axis == -1 else places.unsqueeze(-1)
    return lessons.gather(axis, (first + places).expand(shape))


def one_by_one(lessons: Tensor) -> Tensor:
    """Lessons `[..., J, d]` as rows of their own, `[J, ..., 1, d]`."""
    return lessons.movedim(-2, 0).unsqueeze(-2)


def weighted_sum(gradients: Tensor, weights: Tensor) -> Tensor:
    """The gradients `[J, ..., o, i]` of lessons summed with their weights `[..., J]`."""
    return (gradients * weights.movedim(-1, 0)[..., None, None]).sum(0)


def last_token(rows: Tensor, valid: Tensor | None) -> Tensor:
    """The row of the last token that counts, `[B, ..., 1, n]`; rows that are the same for all stay.

    >>> last_token(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[True, True, False]])).item()
    2.0
    """
    if rows.shape[-2] == 1:
        return rows
    if valid is None:
        return rows[..., -1:, :]
    index = (valid.sum(1) - 1).clamp_min(0).view(-1, *(1,) * (rows.dim() - 1))
    return rows.gather(-2, index.expand(*rows.shape[:-2], 1, rows.shape[-1]))


class Told(Protocol):
    """What tokens are taught: one lesson each, or those in a window, with their weights."""

    @property
    def weight(self) -> Tensor | None: ...
    @property
    def window(self) -> int: ...
    @property
    def products(self) -> int: ...


def lessons_of(one: Told, per_token: Tensor, wide: bool) -> Tensor:
    """From tokens to the lessons in their windows, times the lessons' weights; `wide`: per channel."""
    if one.window > 1:
        band = _band(per_token.shape[-2 if wide else -1], one.window, per_token)
        per_token = band.mT @ per_token if wide else per_token @ band
    if one.weight is not None:
        per_token = per_token * (one.weight.unsqueeze(-1) if wide else one.weight)
    return per_token if one.products == 1 else torch.cat([per_token] * one.products, -2 if wide else -1)


def lessons_seen(one: Told, kernel: Tensor) -> Tensor:
    """From what is seen of tokens `[*lead, T, C]` to what is seen of the lessons in their windows."""
    if one.window > 1:
        kernel = kernel @ _band(kernel.shape[-1], one.window, kernel)
    if one.weight is not None:
        kernel = kernel * one.weight.unsqueeze(-2)
    return torch.cat([kernel] * one.products, -1) if one.products > 1 else kernel


def _band(tokens: int, window: int, like: Tensor) -> Tensor:
    """`[C, J]`: lesson j stands in the windows of the tokens j - c + 1 .. j."""
    return (
        torch.ones(tokens, tokens + window - 1, dtype=like.dtype, device=like.device)
        .triu_()
        .tril_(window - 1)
    )
