"""The delta write of a chunk as a linear system: its solution, its end, and the gradients of both.

Shapes as in `memory`; `scores`, `carried`, `to_end`, `total` broadcast against the leading axes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.delta_rows import RowFlow, Through, pays, rows_ended, rows_flow, through
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
    gram: Tensor | None


def solve(inputs: tuple[Tensor, ...], inverse: Tensor | None = None) -> Solved | Through:
    """Solve for the values really added; `inverse` of the system where it is known."""
    start, x, dy, erase, rate, scores, carried, to_end, total = inputs
    x_, gram = flat(x), None
    if inverse is None:
        gram = torch.bmm(x_, x_.mT).view(*x.shape[:-1], x.shape[-2])
        inverse = unit_lower_inverse(flat((gram * scores).mul_(erase.unsqueeze(-1))))
    if pays(start, x):
        return through(inputs, inverse)
    wanted = torch.bmm(x_, flat(start).mT).view(dy.shape).mul_((erase * carried).unsqueeze(-1))
    wanted.addcmul_(dy, rate.unsqueeze(-1))
    taken = torch.bmm(inverse, flat(wanted))
    return Solved(start, x, dy, erase, rate, scores, carried, to_end, total, inverse, taken, gram)


def ended(solved: Solved | Through) -> Tensor:
    """The weight behind the chunk."""
    if isinstance(solved, Through):
        return rows_ended(solved)
    new = (solved.start * solved.total[..., None, None]).contiguous()
    flat(new).baddbmm_(solved.taken.mT, flat(solved.x * solved.to_end.unsqueeze(-1)), alpha=-1)
    return new


class Flow(NamedTuple):
    """The gradients of the nine arguments."""

    start: Tensor
    x: Tensor
    dy: Tensor
    erase: Tensor
    rate: Tensor
    scores: Tensor | None
    carried: Tensor
    to_end: Tensor
    total: Tensor


def flow_of(solved: Solved | Through, d_new: Tensor, whole: bool) -> Flow:
    """From the gradient of the weight behind the chunk; `whole`: also that of `scores`."""
    found = rows_flow(solved, d_new) if isinstance(solved, Through) else _flow(solved, d_new)
    dx, d_erase = found.x, found.seen * solved.carried
    d_scores: Tensor | None = None
    # The system: strict = erase * (x x^T) * scores.
    x_, erase, scores = flat(solved.x), solved.erase, solved.scores
    d_strict = found.strict.view(*solved.x.shape[:-1], solved.x.shape[-2])
    known = solved.gram if isinstance(solved, Solved) else None
    gram = torch.bmm(x_, x_.mT).view(d_strict.shape) if known is None else known
    if whole:
        part = (gram * d_strict).mul_(erase.unsqueeze(-1))
        d_scores = part.sum_to_size(scores.shape).tril_(-1)
    # Nothing stands above the diagonal of `scores`.
    part = torch.mul(gram, d_strict.mul_(scores), out=gram if known is None else None)
    d_erase += part.sum(-1)
    by_gram = flat(d_strict.mul_(erase.unsqueeze(-1)))
    # Rows and columns of the products are the same keys: one product with the sum of both parts.
    flat(dx).baddbmm_(by_gram + by_gram.mT, x_)
    d_carried = (found.seen * erase).sum_to_size(solved.carried.shape)
    d_end = found.to_end.sum_to_size(solved.to_end.shape)
    d_total = found.total.sum_to_size(solved.total.shape)
    return Flow(found.start, dx, found.dy, d_erase, found.rate, d_scores, d_carried, d_end, d_total)


def _flow(solved: Solved, d_new: Tensor) -> RowFlow:
    start, x, dy, erase, rate, _, carried, to_end, total, inverse, taken, _ = solved
    x_, d_new_ = flat(x), flat(d_new)
    d_total = torch.linalg.vecdot(d_new.flatten(-2), start.flatten(-2))
    # Signs wait for the numbers per token: a pass over a matrix costs more.
    # The write: new -= taken^T (x * to_end).
    dx = torch.bmm(taken, d_new_).view(x.shape)
    # One tensor for all products on the way: a new one each is not in the cache.
    passing = dx * x
    d_end = passing.sum(-1).neg_()
    dx.mul_(-to_end.unsqueeze(-1))
    against = torch.bmm(x_, d_new_.mT).view(dy.shape).mul_(to_end.unsqueeze(-1))
    # The solve: taken = inverse (erase carried (x D^T) + rate dy); `flow` is minus the gradient in brackets.
    flow = torch.bmm(inverse.mT, flat(against))
    d_strict = torch.bmm(flow, taken.mT)
    flow = flow.view(dy.shape)
    d_rate = torch.mul(flow, dy, out=against).sum(-1).neg_()
    seen = torch.bmm(flat(flow), flat(start)).view(x.shape)
    d_seen = torch.mul(seen, x, out=passing).sum(-1).neg_()
    weight = (erase * carried).unsqueeze(-1)
    dx.addcmul_(seen, weight, value=-1)
    d_start = (d_new * total[..., None, None]).contiguous()
    torch.mul(x, weight, out=passing)
    flat(d_start).baddbmm_(flat(flow).mT, flat(passing), alpha=-1)
    d_dy = flow.mul_(-rate.unsqueeze(-1))
    return RowFlow(d_start, dx, d_dy, d_seen, d_rate, d_end, d_total, d_strict)
