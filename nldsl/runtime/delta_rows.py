"""The delta write of a chunk where a weight has far more rows than its inputs have numbers.

All rows meet the same inputs, so what a chunk does to a row of `D` is one matrix, whatever the row:

    D_C = D_0 P - dy^T (rate Y),   P = A I - (erase c X)^T Y,   Y = (I + N)^-T (B X),

`B` the decay to the end, `A` the whole one, `c` what is carried to a token.  Only two products meet the rows
forward and four backward, where the system of `delta_system` has three and six.  Shapes as there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Through(NamedTuple):
    """`delta_write` on `D`: its arguments, the inverse of its system, `Y [*lead, C, i]` and `P [X, i, i]`."""

    start: Tensor
    x: Tensor
    dy: Tensor
    erase: Tensor
    rate: Tensor
    scores: Tensor
    carried: Tensor
    to_end: Tensor
    total: Tensor
    inverse: Tensor
    rows: Tensor
    through: Tensor


def pays(start: Tensor, x: Tensor) -> bool:
    """Whether a chunk `x [*lead, C, i]` is cheaper this way for `start [*lead, o, i]`; forward and backward.

    >>> pays(torch.ones(320, 64), torch.ones(64, 64)), pays(torch.ones(64, 64), torch.ones(64, 64))
    (True, False)
    """
    (size, inner), rows = x.shape[-2:], start.shape[-2]
    this = 3 * rows * inner * (size + inner) + 4 * size * inner * (size + inner)
    return this < 3 * rows * size * (2 * inner + size)


def through(inputs: tuple[Tensor, ...], inverse: Tensor) -> Through:
    """What the chunk does to a row."""
    start, x, dy, erase, rate, scores, carried, to_end, total = inputs
    rows = torch.bmm(inverse.mT, (x * to_end.unsqueeze(-1)).flatten(0, -3)).view(x.shape)
    seen = (x * (erase * carried).unsqueeze(-1)).flatten(0, -3)
    made = torch.bmm(seen.mT, rows.flatten(0, -3)).neg_()
    made.diagonal(dim1=-2, dim2=-1).add_(total.expand(x.shape[:-2]).reshape(-1, 1))
    return Through(start, x, dy, erase, rate, scores, carried, to_end, total, inverse, rows, made)


def rows_ended(known: Through) -> Tensor:
    """The weight behind the chunk."""
    written = known.rows * known.rate.unsqueeze(-1)
    new = torch.bmm(known.start.flatten(0, -3), known.through)
    new.baddbmm_(known.dy.flatten(0, -3).mT, written.flatten(0, -3), alpha=-1)
    return new.view(known.start.shape)


class RowFlow(NamedTuple):
    """Gradients of the arguments, but for what goes through the system: `strict [X, C, C]` asks for that."""

    start: Tensor
    x: Tensor
    dy: Tensor
    seen: Tensor
    rate: Tensor
    to_end: Tensor
    total: Tensor
    strict: Tensor


def rows_flow(known: Through, d_new: Tensor) -> RowFlow:
    """From the gradient of the weight behind the chunk; `seen`: that of `erase c`."""
    x, rows, rate = known.x, known.rows, known.rate.unsqueeze(-1)
    start, dy, d_new_, rows_ = (y.flatten(0, -3) for y in (known.start, known.dy, d_new, rows))
    weight = (known.erase * known.carried).unsqueeze(-1)
    d_start = torch.bmm(d_new_, known.through.mT).view(known.start.shape)
    d_through = torch.bmm(start.mT, d_new_)
    d_total = d_through.diagonal(dim1=-2, dim2=-1).sum(-1).view(x.shape[:-2])
    d_dy = torch.bmm((rows * -rate).flatten(0, -3), d_new_.mT).view(known.dy.shape)
    # From here on signs are turned: `flow` is minus the gradient of `Y`.
    written = torch.bmm(dy, d_new_).view(x.shape)
    flow = (written * rate).flatten(0, -3).baddbmm_((x * weight).flatten(0, -3), d_through)
    d_seen = torch.bmm(rows_, d_through.mT).view(x.shape)
    behind = torch.bmm(known.inverse, flow)
    d_strict = torch.bmm(rows_, behind.mT)
    behind = behind.view(x.shape)
    return RowFlow(
        d_start,
        (behind * -known.to_end.unsqueeze(-1)).addcmul_(d_seen, weight, value=-1),
        d_dy,
        torch.linalg.vecdot(d_seen, x).neg_(),
        torch.linalg.vecdot(written, rows).neg_(),
        torch.linalg.vecdot(behind, x).neg_(),
        d_total,
        d_strict,
    )
