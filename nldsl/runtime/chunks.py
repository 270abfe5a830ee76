"""Sequences cut into chunks of equal width, and back.

Shape suffixes as in `recurrence`: `[B, T, H, ...]` becomes `[N * X, C, ...]` with `X = B * H`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Layout(NamedTuple):
    batch: int
    tokens: int
    heads: int
    chunks: int
    width: int


def layout_of(q_BTHK: Tensor, chunk: int) -> Layout:
    batch, tokens, heads = q_BTHK.shape[:3]
    chunks = max(1, -(-tokens // chunk))
    # Chunks of equal width: 65 tokens are two chunks of 33, not one of 64 and one of padding.
    return Layout(batch, tokens, heads, chunks, -(-tokens // chunks))


def cut(x: Tensor, layout: Layout) -> Tensor:
    """`[B, T, H, ...]` to `[N * X, C, ...]`, zeros behind the end."""
    x = padded(x, layout.chunks * layout.width - layout.tokens)
    x = x.unflatten(1, (layout.chunks, layout.width)).transpose(2, 3).transpose(0, 1)
    return x.flatten(0, 2) if x.is_contiguous() else x.contiguous().flatten(0, 2)


def padded(x: Tensor, missing: int) -> Tensor:
    """`x [B, T, ...]` with so many zeros behind the end."""
    return F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing)) if missing else x


def tokens(y: Tensor, layout: Layout, mask: Tensor | None) -> Tensor:
    """`[N * X, C, V]` to `[B, T, H, V]`, whatever stands in at masked tokens."""
    y = y.view(layout.chunks, layout.batch, layout.heads, layout.width, y.shape[-1])
    y = y.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, : layout.tokens]
    return stand_in(y, mask)


def mask_out(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x
    return x.masked_fill(~_like(mask, x), 0.0)


def stand_in(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x [B, T, ...]` with what the last token that counts has in the place of masked tokens.

    Nothing that counts depends on it, but what follows is computed there too: a zero would make quotients and
    roots whose gradients are infinite, and zero times infinity is no zero.  Where no token of the call
    counts, `anything` stands there: what was read from memories without a token is zero.

    >>> stand_in(torch.tensor([[3.0, 5.0, 0.0]]), torch.tensor([[False, True, False]])).tolist()
    [[5.0, 5.0, 5.0]]
    """
    if mask is None or not mask.numel():
        return x
    counted = mask.flatten().cumsum(0)
    row = x.detach().flatten(0, 1).index_select(0, counted.argmax(0, keepdim=True))
    return torch.where(_like(mask, x), x, torch.where(counted[-1] > 0, row, anything(row)))


def anything(row: Tensor) -> Tensor:
    """Numbers between zero and one, no two of the last axis alike: their quotients and roots are finite.

    Whole numbers are zero: an index that is in range of any table.

    >>> anything(torch.zeros(1, 3)).tolist(), anything(torch.ones(1, 2, dtype=torch.long)).tolist()
    ([[0.25, 0.5, 0.75]], [[0, 0]])
    """
    if not row.is_floating_point() or not row.dim():
        return torch.zeros_like(row)
    size = row.shape[-1]
    places = torch.arange(1, size + 1, dtype=row.dtype, device=row.device) / (size + 1)
    return places.expand_as(row)


def _like(mask: Tensor, x: Tensor) -> Tensor:
    return mask.view(*mask.shape, *(1,) * (x.dim() - 2))
