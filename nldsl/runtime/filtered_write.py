"""A weight and its momentum behind a chunk, in one product with a hand-written backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def filtered_write(
    start: Tensor,
    slot: Tensor,
    rows: tuple[Tensor, Tensor],
    factors: tuple[Tensor, Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Weight and momentum behind the chunk; `factors`: (slot to weight, slot to slot, reach, kept)."""
    lead = start.shape[:-2]
    x, dy = (r.expand(*lead, *r.shape[-2:]) for r in rows)
    numbers = [
        f.expand(*lead, *f.shape[len(lead) :]) if f.dim() >= len(lead) else f.expand(lead) for f in factors
    ]
    new, kept = _Filtered.apply(start, slot.expand_as(start), x, dy, *numbers)  # type: ignore[no-untyped-call]
    return new, kept


class _Filtered(torch.autograd.Function):
    """`W' = W + read m - (dy reach)^T x` and `m' = left m - (dy kept)^T x` in one product."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        start, slot, x, dy, read, left, reach, kept = inputs
        size = dy.shape[-1]
        both = start.new_empty(*start.shape[:-2], 2 * size, start.shape[-1])
        torch.mul(slot, read[..., None, None], out=both[..., :size, :])
        both[..., :size, :].add_(start)
        torch.mul(slot, left[..., None, None], out=both[..., size:, :])
        steps = torch.cat([dy * reach.unsqueeze(-1), dy * kept.unsqueeze(-1)], -1)
        both.flatten(0, -3).baddbmm_(steps.mT.flatten(0, -3), x.flatten(0, -3), alpha=-1)
        ctx.save_for_backward(slot, x, dy, read, left, reach, kept)
        return both[..., :size, :], both[..., size:, :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        slot, x, dy, read, left, reach, kept = ctx.saved_tensors
        d_new, d_kept = grads
        size = dy.shape[-1]
        d_slot = (d_new * read[..., None, None]).addcmul_(d_kept, left[..., None, None])
        d_read, d_left = ((d * slot).sum((-1, -2)) for d in grads)
        both = torch.cat([d_new, d_kept], -2)
        flow = torch.matmul(x, both.mT).neg_()
        to_weight, to_slot = flow[..., :size], flow[..., size:]
        d_reach, d_keeping = torch.linalg.vecdot(to_weight, dy), torch.linalg.vecdot(to_slot, dy)
        d_dy = (to_weight * reach.unsqueeze(-1)).addcmul_(to_slot, kept.unsqueeze(-1))
        steps = torch.cat([dy * reach.unsqueeze(-1), dy * kept.unsqueeze(-1)], -1)
        dx = torch.matmul(steps, both).neg_()
        return d_new, d_slot, dx, d_dy, d_read, d_left, d_reach, d_keeping
