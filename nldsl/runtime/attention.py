"""Softmax attention: the memory that keeps its whole context (Eq. 62-63).

Shape suffixes: `B` batch, `T` tokens of the call, `S` tokens cached, `J` heads of the memory,
`H = m J` query heads (`m` consecutive ones share a copy), `K` key size, `V` value size.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.attend_late import Pairs, attend_grown, attend_late, takes, takes_grown
from nldsl.runtime.chunks import stand_in
from nldsl.runtime.growth import append
from nldsl.runtime.precision import in_half

Cache = dict[str, Tensor | None]

BLOCK = 64
"""The least number of queries of a block when a window is read block by block."""


def attention(
    q_BTHK: Tensor,
    k_BTJK: Tensor,
    v_BTJV: Tensor,
    cache: Cache,
    *,
    scale: float,
    window: int | None = None,
    causal: bool = True,
    start: Pairs | None = None,
    read_before: bool = False,
    pairs: int = 1,
    unseen: int = 0,
    mask: Tensor | None = None,
) -> tuple[Tensor, Cache]:
    """`y_t = sum_i softmax_i(scale q_t . k_i) v_i` over the cached pairs and those of this call.

    `cache` is `{"keys": [B, S, J, K], "values": [B, S, J, V], "valid": [B, S] or None}`, the newest
    pair last.  `window`: only the last so many pairs are seen, and kept.  `read_before`: a token does not
    see its own pair.  With several `pairs` per token keys and values are `[B, T pairs, J, size]`, and the
    last `unseen` of its own are not seen.  `causal=False`: every token sees all pairs.  `start [J, n, size]`
    or `[n, size]`: learned, always seen.  Tokens left out by `mask [B, T]` append nothing and read zero, as
    does a query with nothing to see.

    >>> one = torch.ones(1, 1, 1, 1)
    >>> empty = dict(keys=one[:, :0], values=one[:, :0], valid=None)
    >>> attention(one, one, 3.0 * one, empty, scale=1.0)[0].item()
    3.0
    """
    order = order_of(mask)
    if order is not None:
        q_BTHK, k_BTJK, v_BTJV = _ordered(order, pairs, q_BTHK, k_BTJK, v_BTJV)
    keys, values, valid = with_cache(cache, k_BTJK, v_BTJV, None if order is None else mask, pairs, window)
    tokens, total, unseen = q_BTHK.shape[1], keys.shape[1], pairs if read_before else unseen
    far = None if window is None or total <= window else window
    first = causal and not unseen and far is None and start is None and valid is None
    y = None
    if first and pairs == 1:
        y = _plainly(q_BTHK, (k_BTJK, v_BTJV), (keys, values), cache, order is None, scale)
    if y is None and far is not None and causal and pairs == 1 and _blocks_pay(tokens, far + unseen):
        y = _by_blocks(q_BTHK, keys, values, (far, unseen), valid, start, scale)
    elif y is None:
        places, sure = (pairs, unseen), not unseen and valid is None and tokens > 0
        seen = None if first and tokens == 1 else seen_pairs(tokens, total, far, causal, places, keys.device)
        y = _read(q_BTHK, keys, values, seen, valid, start, scale, sure)
    if order is None or mask is None:
        return y, _trim(keys, values, valid, tokens * pairs, None, window)
    y = stand_in(in_places(y, order.argsort(dim=1)), mask)
    return y, _trim(keys, values, valid, tokens * pairs, mask.sum(1) * pairs, window)


def _plainly(
    q: Tensor, new: Pairs, every: Pairs, cache: Cache, in_order: bool, scale: float
) -> Tensor | None:
    """What queries read that see all up to their own pair, where there is a form for them."""
    if q.shape[1] == every[0].shape[1]:
        return _dot_product(q, *every, scale, is_causal=True)
    if in_order and takes(q, *new, _pairs(cache)):
        return attend_late(q, new, every, scale)
    return attend_grown(q, every, scale) if in_order and takes_grown(q, *new) else None


def interleaved(*rows: Tensor) -> Tensor:
    """Keys (or values) `[B, T, J, d]` of several pairs per token, those of a token together.

    >>> interleaved(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    return torch.stack(torch.broadcast_tensors(*rows), 2).flatten(1, 2)


def forget(
    which: bool | Tensor, keys: Tensor, values: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What is kept of a cache when the samples named by `which` (`True`, `False` or `[B]`) begin anew.

    >>> two = torch.ones(2, 3, 1, 1)
    >>> forget(torch.tensor([True, False]), two, two, None)[2].tolist()
    [[False, False, False], [True, True, True]]
    """
    if isinstance(which, bool):
        return (keys[:, :0], values[:, :0], None) if which else (keys, values, valid)
    seen = keys.new_ones(keys.shape[:2], dtype=torch.bool) if valid is None else valid
    seen = seen & ~which.unsqueeze(1)
    first = seen.shape[1] - (int(seen.sum(1).max()) if seen.numel() else 0)
    return keys[:, first:], values[:, first:], seen[:, first:]


def order_of(mask: Tensor | None) -> Tensor | None:
    """Real tokens first, so that distances are those in the cache; `None` if all tokens are real."""
    if mask is None or bool(mask.all()):
        return None
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)


def _ordered(order: Tensor, pairs: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    each = _each(order, pairs)
    return in_places(q, order), in_places(k, each), in_places(v, each)


def _each(order: Tensor, pairs: int) -> Tensor:
    """The order of the pairs of tokens in this order."""
    if pairs == 1:
        return order
    return (order.unsqueeze(-1) * pairs + torch.arange(pairs, device=order.device)).flatten(1)


def in_places(x: Tensor, index: Tensor) -> Tensor:
    return x[torch.arange(x.shape[0], device=x.device).unsqueeze(1), index]


def _pairs(cache: Cache) -> Pairs:
    keys, values = cache["keys"], cache["values"]
    assert keys is not None and values is not None
    return keys, values


def with_cache(
    cache: Cache,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    pairs: int,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cached pairs (newest last) and those of the call (real ones first) behind them."""
    (keys, values), valid = _pairs(cache), cache["valid"]
    old = keys.shape[1]
    if valid is not None or mask is not None:
        here = keys.new_ones(k.shape[:2], dtype=torch.bool)
        if mask is not None:
            here = torch.arange(k.shape[1], device=k.device) < mask.sum(1, keepdim=True) * pairs
        past = keys.new_ones(keys.shape[0], old, dtype=torch.bool) if valid is None else valid
        valid = torch.cat([past, here], 1)
    if old == 0:
        return k, v, valid
    if window is None and valid is None:
        return append(keys, k), append(values, v), None
    # Behind what is left of a cache that is taken apart there is no room.
    return torch.cat([keys, k], 1), torch.cat([values, v], 1), valid


def seen_pairs(
    tokens: int,
    total: int,
    window: int | None,
    causal: bool,
    places: tuple[int, int],
    device: torch.device,
) -> Tensor | None:
    """`[T, S + T]`: which pairs a query may see by their distance; `None` if it may see all.

    `places`: how many pairs a token appends, and how many of them it does not see.
    """
    if not causal and window is None:
        return None
    pairs, unseen = places
    newest = torch.arange(1, tokens + 1, device=device).unsqueeze(1) * pairs - 1 - unseen
    ages = newest + (total - tokens * pairs) - torch.arange(total, device=device)
    seen = ages >= 0 if causal else torch.ones_like(ages, dtype=torch.bool)
    return seen if window is None else seen & (ages < window)


def _blocks_pay(tokens: int, reach: int) -> bool:
    """Whether queries go in blocks: then time and memory grow with the window, not with the tokens.

    An exported program has one form for every length.
    """
    return tokens > 2 * max(reach, BLOCK) and not torch.compiler.is_exporting()


def _by_blocks(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    reach: tuple[int, int],
    valid: Tensor | None,
    start: Pairs | None,
    scale: float,
) -> Tensor:
    """Attention through a window: a block of queries sees the pairs of its own and the block before.

    `reach`: the window, and how many of its own pairs a token does not see.  A block is no shorter than
    both together, so that no query sees further back than one block.
    """
    window, unseen = reach
    (batch, tokens), total, size = q.shape[:2], keys.shape[1], max(window + unseen, BLOCK)
    count, old = -(-tokens // size), total - tokens
    behind = count * size - tokens

    def cut(x: Tensor) -> Tensor:
        # One block of pairs stands before the first query, as many as there are or filled up.
        x = x[:, max(0, old - size) :].transpose(1, -1)
        x = F.pad(x, (max(0, size - old), behind)).transpose(1, -1)
        parts: Tensor = x.unflatten(1, (count + 1, size))
        return torch.cat([parts[:, :-1], parts[:, 1:]], 2).flatten(0, 1)

    there = keys.new_ones(batch, total, dtype=torch.bool) if valid is None else valid
    queries = F.pad(q, (0, 0, 0, 0, 0, behind)).unflatten(1, (count, size)).flatten(0, 1)
    seen = seen_pairs(size, 2 * size, window, True, (1, unseen), q.device)
    y: Tensor = _read(queries, cut(keys), cut(values), seen, cut(there), start, scale)
    y = y.unflatten(0, (batch, count)).flatten(1, 2)
    return y[:, :tokens]


def _read(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    seen: Tensor | None,
    valid: Tensor | None,
    start: Pairs | None,
    scale: float,
    sure: bool = False,
) -> Tensor:
    """Attention `[B, T, H, V]`; queries that see nothing give zero; `sure`: there are none."""
    allowed = None if seen is None else seen[None, None]
    if valid is not None:
        allowed = valid[:, None, None] if allowed is None else allowed & valid[:, None, None]
    if start is not None:
        keys, values, allowed = _with_start(keys, values, allowed, start)
    if keys.shape[1] == 0:
        return q.new_zeros(*q.shape[:3], values.shape[3])
    if allowed is None:
        return _dot_product(q, keys, values, scale)
    if sure:
        return _dot_product(q, keys, values, scale, attn_mask=allowed)
    nothing = ~allowed.any(-1, keepdim=True)
    y = _dot_product(q, keys, values, scale, attn_mask=allowed | nothing)
    return y.masked_fill(nothing.transpose(1, 2), 0.0)


def _dot_product(q: Tensor, keys: Tensor, values: Tensor, scale: float, **options: Any) -> Tensor:
    shared = q.shape[2] != keys.shape[2]
    q, keys, values = q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
    read = partial(F.scaled_dot_product_attention, scale=scale, enable_gqa=shared, **options)
    return in_half(read, q, keys, values).transpose(1, 2)


def _with_start(
    keys: Tensor, values: Tensor, allowed: Tensor | None, start: Pairs
) -> tuple[Tensor, Tensor, Tensor | None]:
    first_keys, first_values = (
        (pair if pair.dim() == 3 else pair.unsqueeze(0)).transpose(0, 1).expand(keys.shape[0], -1, -1, -1)
        for pair in start
    )
    count = first_keys.shape[1]
    if allowed is not None:
        allowed = F.pad(allowed, (count, 0), value=True)
    return torch.cat([first_keys, keys], 1), torch.cat([first_values, values], 1), allowed


def _trim(
    keys: Tensor,
    values: Tensor,
    valid: Tensor | None,
    tokens: int,
    lengths: Tensor | None,
    window: int | None,
) -> Cache:
    """The new cache: the newest pair last in every sample, the oldest out of the window gone."""
    pairs = keys.shape[1]
    if lengths is not None:
        assert valid is not None
        # Samples with fewer real tokens end earlier: move theirs to the end.
        place = torch.arange(pairs, device=keys.device) - (tokens - lengths).unsqueeze(1)
        inside, place = place >= 0, place.clamp_min(0)
        keys, values, valid = (
            in_places(keys, place),
            in_places(values, place),
            in_places(valid, place) & inside,
        )
        # Leading slots that no sample uses go.
        first = int(valid.sum(1).max()) if valid.numel() else 0
        keys, values, valid = keys[:, pairs - first :], values[:, pairs - first :], valid[:, pairs - first :]
    if window is not None:
        # Copies, so that pairs behind the window are not kept.
        keys, values = keys[:, -window:].clone(), values[:, -window:].clone()
        valid = None if valid is None else valid[:, -window:]
    # An exported program has one form for every state, and looks at no number to choose it.
    if valid is not None and not torch.compiler.is_exporting() and bool(valid.all()):
        valid = None
    return {"keys": keys, "values": values, "valid": valid}
