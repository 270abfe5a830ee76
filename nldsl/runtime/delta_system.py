"""The delta write of a chunk as a linear system: its solution, its end, and the gradients of both.

Shapes as in `memory`; `scores`, `carried`, `to_end`, `total` broadcast against the leading axes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nldsl.runtime.recompute import results_wanted
from nldsl.runtime.triangular import unit_lower_inverse


def flat(x: Tensor) -> Tensor:
    """All leading axes of a matrix as one."""
    return x.flatten(0, -3)


class Solved(NamedTuple):
    """`delta_write` on `D`: its arguments, the inverse of its system, and the values really taken away."""

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
    taken: Tensor


def solve(inputs: tuple[Tensor, ...], inverse: Tensor | None = None) -> Solved:
    """Solve for the values really added; `inverse` of the system where it is known."""
    start, x, dy, erase, rate, scores, carried, to_end, total = inputs
    x_ = flat(x)
    if inverse is None:
        gram = torch.bmm(x_, x_.mT).view(*x.shape[:-1], x.shape[-2])
        inverse = unit_lower_inverse(flat((gram * scores).mul_(erase.unsqueeze(-1))))
    wanted = torch.bmm(x_, flat(start).mT).view(dy.shape).mul_((erase * carried).unsqueeze(-1))
    wanted.addcmul_(dy, rate.unsqueeze(-1))
    taken = torch.bmm(inverse, flat(wanted))
    return Solved(start, x, dy, erase, rate, scores, carried, to_end, total, inverse, taken)


class DeltaWrite(torch.autograd.Function):
    """`delta_write` on `D`; `scores`, `carried`, `to_end`, `total` broadcast against the leading axes."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        solved = solve(inputs)
        if results_wanted():
            new = ended(solved)
        else:
            start = solved.start
            new = torch.zeros((), dtype=start.dtype, device=start.device).expand_as(start)
        ctx.save_for_backward(*solved)
        return new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        return flow_of(Solved(*ctx.saved_tensors), grads[0], ctx.needs_input_grad[5])


def ended(solved: Solved) -> Tensor:
    """The weight behind the chunk."""
    new = (solved.start * solved.total[..., None, None]).contiguous()
    flat(new).baddbmm_(solved.taken.mT, flat(solved.x * solved.to_end.unsqueeze(-1)), alpha=-1)
    return new


def flow_of(solved: Solved, d_new: Tensor, gated: bool) -> tuple[Tensor | None, ...]:
    """The gradients of the nine arguments; `gated`: that of `scores` is wanted."""
    start, x, dy, erase, rate, scores, carried, to_end, total, inverse, taken = solved
    x_, d_new_ = flat(x), flat(d_new)
    d_total = (d_new * start).sum((-1, -2)).sum_to_size(total.shape)
    # Signs wait for the numbers per token: a pass over a matrix costs more.
    # The write: new -= taken^T (x * to_end).
    dx = torch.bmm(taken, d_new_).view(x.shape)
    d_end = torch.linalg.vecdot(dx, x).neg_()
    dx.mul_(-to_end.unsqueeze(-1))
    against = torch.bmm(x_, d_new_.mT).view(dy.shape).mul_(to_end.unsqueeze(-1))
    # The solve: taken = inverse (erase carried (x D^T) + rate dy); `flow` is minus the gradient in brackets.
    flow = torch.bmm(inverse.mT, flat(against))
    d_strict = torch.bmm(flow, taken.mT).tril_(-1).view(*x.shape[:-1], x.shape[-2])
    flow = flow.view(dy.shape)
    d_dy, d_rate = flow * -rate.unsqueeze(-1), torch.linalg.vecdot(flow, dy).neg_()
    seen = torch.bmm(flat(flow), flat(start)).view(x.shape)
    d_seen = torch.linalg.vecdot(seen, x).neg_()
    weight = erase * carried
    dx.addcmul_(seen, -weight.unsqueeze(-1))
    d_start = (d_new * total[..., None, None]).contiguous()
    flat(d_start).baddbmm_(flat(flow).mT, flat(x * weight.unsqueeze(-1)), alpha=-1)
    # The system: strict = erase * (x x^T) * scores.
    gram = torch.bmm(x_, x_.mT).view(d_strict.shape)
    d_erase = d_seen * carried
    d_scores = None
    if gated:
        gram.mul_(d_strict)
        d_erase += torch.linalg.vecdot(gram, scores.expand_as(gram))
        d_scores = gram.mul_(erase.unsqueeze(-1)).sum_to_size(scores.shape)
        d_strict.mul_(scores)
    else:
        d_strict.mul_(scores)
        d_erase += torch.linalg.vecdot(gram, d_strict)
    by_gram = flat(d_strict.mul_(erase.unsqueeze(-1)))
    # Rows and columns of the products are the same keys: one product with the sum of both parts.
    flat(dx).baddbmm_(by_gram + by_gram.mT, x_)
    d_carried = (d_seen * erase).sum_to_size(carried.shape)
    d_end = d_end.sum_to_size(to_end.shape)
    return d_start, dx, d_dy, d_erase, d_rate, d_scores, d_carried, d_end, d_total
