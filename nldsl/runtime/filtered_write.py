"""A weight and its momentum behind a chunk in one function, with a hand-written way back.

W' = keep W + read m - (dy * reach)^T x,   m' = left m - (dy * kept)^T x.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order


def filtered_write(
    start: Tensor,
    slot: Tensor,
    rows: tuple[Tensor, Tensor],
    factors: tuple[Tensor, Tensor, Tensor, Tensor],
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weight and momentum behind the chunk; `factors`: (slot to weight, slot to slot, reach, kept).

    Weight and slot `[*lead, o, i]`, rows `x [*lead, C, i]` and `dy [*lead, C, o]`, numbers `[*lead]` or
    `[*lead, C]`; `lead` of all but the weight broadcasts.  Without `keep` the weight does not decay.

    >>> one, rows = torch.ones(1, 1, 1), torch.ones(1, 2, 1)
    >>> half, per_row = torch.full((1,), 0.5), torch.full((1, 2), 0.25)
    >>> new, slot = filtered_write(one, one, (rows, rows), (half, half, per_row, per_row / 2), half)
    >>> new.item(), slot.item()
    (0.5, 0.25)
    """
    lead = start.shape[:-2]

    def flat(x: Tensor, rest: int) -> Tensor:
        tail = x.shape[x.dim() - rest :]
        return x.expand(*lead, *tail).reshape(-1, *tail)

    matrices = (flat(x, 2) for x in (start, slot, *rows))
    numbers = (flat(f, rest) for f, rest in zip(factors, (0, 0, 1, 1), strict=True))
    keep = None if keep is None else flat(keep, 0)
    new, kept = _Filtered.apply(*matrices, keep, *numbers)  # type: ignore[no-untyped-call]
    return new.view(start.shape), kept.view(start.shape)


class _Given(NamedTuple):
    weight: Tensor
    slot: Tensor
    x: Tensor
    dy: Tensor
    keep: Tensor | None
    read: Tensor
    left: Tensor
    reach: Tensor
    kept: Tensor

    def steps(self) -> tuple[Tensor, Tensor]:
        """The gradients at the outputs as weight and momentum take them."""
        return self.dy * self.reach.unsqueeze(-1), self.dy * self.kept.unsqueeze(-1)


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        one = _Given(*tensors)  # type: ignore[arg-type]
        to_weight, to_slot = one.steps()
        new, slot = one.slot * one.read[:, None, None], one.slot * one.left[:, None, None]
        if one.keep is None:
            new.add_(one.weight)
        else:
            new.addcmul_(one.weight, one.keep[:, None, None])
        ctx.save_for_backward(*one)
        return new.baddbmm_(to_weight.mT, one.x, alpha=-1), slot.baddbmm_(to_slot.mT, one.x, alpha=-1)

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        return _back(_Given(*ctx.saved_tensors), *grads)


def _back(one: _Given, d_new: Tensor, d_slot: Tensor) -> tuple[Tensor | None, ...]:
    flat, slot = d_new.flatten(1), one.slot.flatten(1)
    d_weight, d_keep = d_new, None
    if one.keep is not None:
        d_weight = d_new * one.keep[:, None, None]
        d_keep = torch.linalg.vecdot(flat, one.weight.flatten(1))
    d_read, d_left = torch.linalg.vecdot(flat, slot), torch.linalg.vecdot(d_slot.flatten(1), slot)
    to_momentum = (d_new * one.read[:, None, None]).addcmul_(d_slot, one.left[:, None, None])
    to_weight, to_slot = one.steps()
    dx = torch.bmm(to_weight, d_new).baddbmm_(to_slot, d_slot).neg_()
    at_weight, at_slot = torch.bmm(one.x, d_new.mT).neg_(), torch.bmm(one.x, d_slot.mT).neg_()
    d_reach, d_kept = torch.linalg.vecdot(at_weight, one.dy), torch.linalg.vecdot(at_slot, one.dy)
    d_dy = at_weight.mul_(one.reach.unsqueeze(-1)).addcmul_(at_slot, one.kept.unsqueeze(-1))
    return d_weight, to_momentum, dx, d_dy, d_keep, d_read, d_left, d_reach, d_kept
