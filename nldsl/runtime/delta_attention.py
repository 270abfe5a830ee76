"""Attention over values that are made of what keys have read: all of a call by one triangular system.

    u_t = e_t + sum_i c_it sum_(s < t) softmax_s(scale p_it . k_s) u_s

Shape suffixes: `B` batch, `T` tokens of the call, `J` heads, `K` key size, `V` value size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.attention import Cache, in_places, order_of, seen_pairs, with_cache
from nldsl.runtime.triangular import HALVES

Look = tuple[Tensor, Tensor]
"""Queries `[B, T, J, K]` of a read, and the numbers `[B, T, J]` that it is taken times."""


def solved_values(
    looks: Sequence[Look],
    k_BTJK: Tensor,
    e_BTJV: Tensor,
    cache: Cache,
    *,
    scale: float,
    window: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The values `u [B, T, J, V]` that are written at keys `k`; `cache` as in `attention`, with values `u`.

    A read sees the pairs of the tokens before, the last `window` of them; one that sees nothing is zero.
    Tokens left out by `mask [B, T]` write nothing: theirs is `e`.  Costs as much as attention without a
    kernel: `T (S + T)` scores per look, and a triangular solve.

    >>> k = torch.ones(1, 3, 1, 1)
    >>> empty = dict(keys=k[:, :0], values=k[:, :0], valid=None)
    >>> solved_values([(k, -torch.ones(1, 3, 1))], k, k, empty, scale=1.0).flatten().tolist()
    [1.0, 0.0, 0.5]
    """
    if e_BTJV.dtype in HALVES:
        wide = [(q.float(), c.float()) for q, c in looks]
        kept: Cache = {n: x.float() if x is not None and n != "valid" else x for n, x in cache.items()}
        found = solved_values(
            wide, k_BTJK.float(), e_BTJV.float(), kept, scale=scale, window=window, mask=mask
        )
        return found.to(e_BTJV.dtype)
    order, rest = order_of(mask), e_BTJV
    if order is not None:
        looks = [(in_places(q, order), in_places(c, order)) for q, c in looks]
        k_BTJK, rest = in_places(k_BTJK, order), in_places(rest, order)
    keys, values, valid = with_cache(cache, k_BTJK, rest, None if order is None else mask, 1, window)
    tokens, total = k_BTJK.shape[1], keys.shape[1]
    far = None if window is None or total <= window else window
    allowed = seen_pairs(tokens, total, far, True, (1, 1), keys.device)
    assert allowed is not None
    if valid is not None:
        allowed = allowed & valid[:, None, None]
    weights = sum((_weights(q, c, keys, allowed, scale) for q, c in looks), start=keys.new_zeros(()))
    before, own = weights[..., : total - tokens], weights[..., total - tokens :]
    right = rest.transpose(1, 2) + before @ values[:, : total - tokens].transpose(1, 2)
    u: Tensor = torch.linalg.solve_triangular(-own, right, upper=False, unitriangular=True).transpose(1, 2)
    if order is None or mask is None:
        return u
    return torch.where(mask[:, :, None, None], in_places(u, order.argsort(dim=1)), e_BTJV)


def _weights(q: Tensor, c: Tensor, keys: Tensor, allowed: Tensor, scale: float) -> Tensor:
    """`c_t softmax_s(scale q_t . k_s)` over the pairs a token sees, `[B, J, T, S + T]`; zero elsewhere."""
    scores = scale * (q.transpose(1, 2) @ keys.permute(0, 2, 3, 1))
    nothing = ~allowed.any(-1, keepdim=True)
    shares: Tensor = (
        scores.masked_fill(~(allowed | nothing), -torch.inf).softmax(-1).masked_fill(nothing, 0.0)
    )
    weights: Tensor = c.transpose(1, 2).unsqueeze(-1) * shares
    return weights
