"""Causal products of keys under a decay per channel: `A_ij = sum_d r_id c_jd exp(g_id - h_jd)`.

`g` and `h` are running sums of log decays, so every pair that counts (`j` not after `i`) has an exponent
that is a true sum of log decays.  Taken apart as `exp(g_i - m) exp(m - h_j)` with an anchor `m` one matrix
product does it, but one of the two factors grows with the distance from the anchor.  So:

* anchor in the middle of the chunk, one product, if no exponent of the call leaves `[-LIMIT, LIMIT]`
  (`LIMIT` is 0.7 of the largest exponent of the type: 62 in float32, 496 in float64);
* else halves: what the second half of a block sees of the first is anchored at their border, where both
  exponents are true sums; blocks of `base` tokens end the recursion, anchored in their middle.  `base` is the
  largest power of two with `(base / 2 + 1) * steepest <= LIMIT`, `steepest` the largest log decay of a
  token: in float32 up to 6.8 at 16, 12.4 at 8, 20 at 4, 31 at 2;
* beyond that `base` is one token, whose pairs are computed entry by entry: exact at every decay.

`pick_base` makes the choice from the values of the call.  Under `torch.compile` it cannot look at them and
takes the last form.  Shapes: `X` chunks x batch x heads, `C` tokens (a power of two), `n`, `m` rows and
columns per token, `K` channels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order


class Exponents(NamedTuple):
    """Running sums of log decays: of rows `[X, C, n, K]`, columns `[X, C, m, K]`, in front of each token."""

    rows: Tensor
    columns: Tensor
    front: Tensor


def limit_of(dtype: torch.dtype) -> float:
    """The largest exponent an anchored factor may have."""
    kind = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    return 0.7 * math.log(torch.finfo(kind).max)


def pick_base(front: Tensor, token: Tensor, dtype: torch.dtype) -> int:
    """Tokens of the blocks that are anchored in their middle; `front`, `token` `[X, C, K]`.

    >>> steps = torch.full((1, 16, 1), -1.0)
    >>> [pick_base(s * (steps.cumsum(1) + 1), s * steps, torch.float32) for s in (1.0, 10.0, 100.0)]
    [16, 8, 1]
    """
    width = token.shape[1]
    if torch.compiler.is_compiling() or not token.numel():
        return 1
    limit = limit_of(dtype)
    steepest = float(token.detach().abs().amax())
    middle = front.detach()[:, width // 2 : width // 2 + 1]
    if float((front.detach() - middle).abs().amax()) + steepest <= limit:
        return width
    base = width // 2
    while base > 1 and not (base / 2 + 1) * steepest <= limit:
        base //= 2
    return max(1, base)


def channel_gram(rows: Tensor, columns: Tensor, at: Exponents, seen: Tensor, base: int) -> Tensor:
    """`A [X, C * n, C * m]` of `rows [X, C, n, K]` and `columns [X, C, m, K]`, zero where `seen` is.

    `seen [C * n, C * m]` must be zero wherever a column's token is after the row's.

    >>> one, zero = torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    >>> log = torch.tensor([0.5, 0.25]).log().view(1, 2, 1, 1).cumsum(1)
    >>> front = torch.cat([zero[:, :1, 0], log[:, :1, 0]], 1)
    >>> channel_gram(one, one, Exponents(log, log, front), torch.ones(2, 2).tril(), 2)
    tensor([[[1.0000, 0.0000],
             [0.2500, 1.0000]]])
    """
    made: Tensor = _Gram.apply(rows, columns, *at, seen, base)  # type: ignore[no-untyped-call]
    return made


def channel_apply(scores: Tensor, columns: Tensor, at: Exponents, seen: Tensor, base: int) -> Tensor:
    """`y_i = sum_j scores_ij exp(g_i - h_j) * c_j`, `[X, C, n, K]`, of `scores [X, C * n, C * m]`.

    Pairs where `seen` is zero do not count, whatever their score.
    """
    made: Tensor = _Apply.apply(scores, columns, *at, seen, base)  # type: ignore[no-untyped-call]
    return made


def _factors(at: Exponents, base: int, dtype: torch.dtype) -> list[tuple[int, bool, Tensor, Tensor]]:
    """For each level (tokens of a half, whether it is the last): the factors of rows and of columns."""
    width = at.front.shape[1]
    levels = []
    half = width // 2
    while half >= base and half:
        border = at.front.unflatten(1, (-1, 2, half))[:, :, 1, :1, None]
        second = at.rows.unflatten(1, (-1, 2, half))[:, :, 1] - border
        first = border - at.columns.unflatten(1, (-1, 2, half))[:, :, 0]
        levels.append((half, False, second.to(dtype).exp_(), first.to(dtype).exp_()))
        half //= 2
    if base > 1:
        middle = at.front.unflatten(1, (-1, base))[:, :, base // 2, None, None]
        inside = at.rows.unflatten(1, (-1, base)) - middle
        outside = middle - at.columns.unflatten(1, (-1, base))
        levels.append((base, True, inside.to(dtype).exp_(), outside.to(dtype).exp_()))
    return levels


def _halves(x: Tensor, size: int, last: bool, second: bool) -> Tensor:
    """The tokens of `x [X, C, n, K]` a level works on: blocks `[X, blocks, size, n, K]`."""
    blocks: Tensor = x.unflatten(1, (-1, size) if last else (-1, 2, size))
    return blocks if last else blocks[:, :, int(second)]


def _blocks(scores: Tensor, size: int, last: bool, n: int, m: int) -> Tensor:
    """The view `[X, blocks, size * n, size * m]` of the blocks of `scores` a level fills."""
    step = size if last else 2 * size
    count = scores.shape[-1] // (step * m)
    whole = scores.view(-1, count, step * n, count, step * m)
    if not last:
        whole = whole[:, :, size * n :, :, : size * m]
    blocks: Tensor = whole.diagonal(dim1=1, dim2=3).movedim(-1, 1)
    return blocks


def _inside(at: Exponents, seen: Tensor, dtype: torch.dtype) -> Tensor:
    """`exp(g - h)` of the pairs inside each token, `[X, C, n, m, K]`; zero where `seen` is."""
    width, n, m = at.rows.shape[1], at.rows.shape[2], at.columns.shape[2]
    own = seen.view(width, n, width, m).diagonal(dim1=0, dim2=2).movedim(-1, 0) == 0
    gap = at.rows.unsqueeze(3) - at.columns.unsqueeze(2)
    inside: Tensor = gap.masked_fill_(own.unsqueeze(-1), -torch.inf).to(dtype).exp_()
    return inside


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, g: Tensor, h: Tensor, front: Tensor, seen: Tensor, base: int
    ) -> Tensor:
        ctx.save_for_backward(rows, columns, g, h, front, seen)
        ctx.base = base
        at, (count, width, n, _), m = Exponents(g, h, front), rows.shape, columns.shape[2]
        out = rows.new_zeros(count, width * n, width * m)
        for size, last, row_factor, column_factor in _factors(at, base, rows.dtype):
            second = (_halves(rows, size, last, True) * row_factor).flatten(2, 3)
            first = (_halves(columns, size, last, False) * column_factor).flatten(2, 3)
            _blocks(out, size, last, n, m).copy_(second @ first.mT)
        if base == 1:
            pairs = rows.unsqueeze(3) * columns.unsqueeze(2)
            pairs = (pairs * _inside(at, seen, rows.dtype)).sum(-1)
            _blocks(out, 1, True, n, m).copy_(pairs)
        # Factors of pairs that do not count may overflow; they are replaced, never multiplied.
        return out.masked_fill_(seen == 0, 0.0)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        rows, columns, g, h, front, seen = ctx.saved_tensors
        flow = grads[0].contiguous().masked_fill(seen == 0, 0.0)
        d_rows, d_columns = _gram_flow(flow, rows, columns, Exponents(g, h, front), seen, ctx.base)
        return d_rows, d_columns, d_rows * rows, -d_columns * columns, None, None, None


def _gram_flow(
    flow: Tensor, rows: Tensor, columns: Tensor, at: Exponents, seen: Tensor, base: int
) -> tuple[Tensor, Tensor]:
    n, m = rows.shape[2], columns.shape[2]
    d_rows, d_columns = torch.zeros_like(rows), torch.zeros_like(columns)
    for size, last, row_factor, column_factor in _factors(at, base, rows.dtype):
        second = (_halves(rows, size, last, True) * row_factor).flatten(2, 3)
        first = (_halves(columns, size, last, False) * column_factor).flatten(2, 3)
        part = _blocks(flow, size, last, n, m)
        _halves(d_rows, size, last, True).add_((part @ first).view(row_factor.shape) * row_factor)
        _halves(d_columns, size, last, False).add_(
            (part.mT @ second).view(column_factor.shape) * column_factor
        )
    if base == 1:
        pairs = _blocks(flow, 1, True, n, m).unsqueeze(-1) * _inside(at, seen, rows.dtype)
        d_rows += (pairs * columns.unsqueeze(2)).sum(3)
        d_columns += (pairs * rows.unsqueeze(3)).sum(2)
    return d_rows, d_columns


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        columns: Tensor,
        g: Tensor,
        h: Tensor,
        front: Tensor,
        seen: Tensor,
        base: int,
    ) -> Tensor:
        scores = scores.masked_fill(seen == 0, 0.0)
        at, n, m = Exponents(g, h, front), g.shape[2], columns.shape[2]
        y = columns.new_zeros(g.shape)
        for size, last, row_factor, column_factor in _factors(at, base, columns.dtype):
            first = (_halves(columns, size, last, False) * column_factor).flatten(2, 3)
            made = _blocks(scores, size, last, n, m) @ first
            _halves(y, size, last, True).add_(made.view(row_factor.shape) * row_factor)
        if base == 1:
            own = _blocks(scores, 1, True, n, m)
            inside = _inside(at, seen, columns.dtype)
            y += (own.unsqueeze(-1) * inside * columns.unsqueeze(2)).sum(3)
        ctx.save_for_backward(scores, columns, g, h, front, seen, y)
        ctx.base = base
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        dy = grads[0].contiguous()
        scores, columns, g, h, front, seen, y = ctx.saved_tensors
        at, base, n, m = Exponents(g, h, front), ctx.base, g.shape[2], columns.shape[2]
        d_columns = torch.zeros_like(columns)
        d_scores = torch.zeros_like(scores)
        for size, last, row_factor, column_factor in _factors(at, base, columns.dtype):
            second = (_halves(dy, size, last, True) * row_factor).flatten(2, 3)
            first = (_halves(columns, size, last, False) * column_factor).flatten(2, 3)
            _blocks(d_scores, size, last, n, m).copy_(second @ first.mT)
            made = _blocks(scores, size, last, n, m).mT @ second
            _halves(d_columns, size, last, False).add_(made.view(column_factor.shape) * column_factor)
        if base == 1:
            own = _blocks(scores, 1, True, n, m)
            inside = _inside(at, seen, columns.dtype)
            _blocks(d_scores, 1, True, n, m).copy_((dy.unsqueeze(3) * inside * columns.unsqueeze(2)).sum(-1))
            d_columns += (own.unsqueeze(-1) * inside * dy.unsqueeze(3)).sum(2)
        d_scores.masked_fill_(seen == 0, 0.0)
        return d_scores, d_columns, dy * y, -d_columns * columns, None, None, None
