"""Writing a chunk into the weights of a memory whose gradients are taken at the chunk's base.

With gradients at the base, every weight follows a recurrence of its own over the tokens of a chunk,
and only its end is needed.  `D = W - r`, `r` what retention decays toward:

* `decay_write`     `D_t = a_t D_{t-1} - rate_t dy_t x_t^T`                                     (gd)
* `delta_write`     `D_t = a_t D_{t-1} - erase_t (D_{t-1} x_t) x_t^T - rate_t dy_t x_t^T`       (dgd)

Shapes.  Weight `[*lead, o, i]`, its inputs `x [*lead, C, i]`, gradients at its outputs
`dy [*lead, C, o]`, rates and gates `[*lead, C]`; `lead` is `B`, `B, H` or, for memories side by side,
`B, H, m`.  Any of `x`, rates and gates may have size 1 where the weight has more; `x` and all
rates of size 1 in the last axis of `lead` share one product and one inverse for all `m`.
`valid [B, C]`: slots without a token change nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nldsl.runtime.decay import before, causal_mask, decay_kernel, decay_to_end
from nldsl.runtime.recompute import results_wanted
from nldsl.runtime.triangular import unit_lower_inverse


class Retention(NamedTuple):
    """What retention does over a chunk: `to_end [*lead, C]`, `total [*lead]`; for `delta_write` also
    `scores [*lead, C, C]`, `carried [*lead, C]`, as seen before a token's own step.
    """

    to_end: Tensor
    total: Tensor
    scores: Tensor | None = None
    carried: Tensor | None = None


def retention(
    *, retain: Tensor | None = None, log_retain: Tensor | None = None, valid: Tensor | None = None
) -> Retention:
    """The gates of a chunk prepared for `decay_write`, from plain or from log gates `[*lead, C]`.

    >>> retention(retain=torch.tensor([[0.5, 0.5]])).total.item()
    0.25
    """
    return Retention(*decay_to_end(*valid_gates(retain, log_retain, valid)))


def retention_kernel(
    *, retain: Tensor | None = None, log_retain: Tensor | None = None, valid: Tensor | None = None
) -> Retention:
    """The gates of a chunk prepared for `delta_write`; prepare them once for all weights they act on."""
    kernel = decay_kernel(*valid_gates(retain, log_retain, valid))
    return Retention(kernel.to_end, kernel.total, *before(kernel))


def decay_write(
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    *,
    rate: Tensor,
    gate: Retention | None = None,
    toward: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """The weight behind a chunk of gradient steps: `D_C = A D_0 - sum_t (a_{t+1} .. a_C) rate_t dy_t x_t^T`.

    >>> w, x, dy = torch.ones(1, 1, 1), torch.ones(1, 2, 1), torch.ones(1, 2, 1)
    >>> decay_write(w, x, dy, rate=torch.tensor([[0.1, 0.2]])).item()
    0.699...
    """
    rate = alive(rate, valid)
    start = weight if toward is None else weight - toward
    if gate is not None:
        rate = rate * gate.to_end
        start = start * gate.total[..., None, None]
    new = start - (dy * rate.unsqueeze(-1)).mT @ x
    return new if toward is None else new + toward


def delta_write(
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    *,
    erase: Tensor,
    rate: Tensor,
    gate: Retention | None = None,
    toward: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """The weight behind a chunk of delta gradient descent (each token erases what it will write over).

    The values really added solve `(I + N) d = -erase c (D_0 x) - rate dy` with
    `N_tj = erase_t (x_t . x_j) L_tj`; `D_C = A D_0 + sum_t (a_{t+1} .. a_C) d_t x_t^T`.
    `gate` from `retention_kernel`.

    >>> w, x, dy = torch.ones(1, 1, 1), torch.ones(1, 2, 1), torch.zeros(1, 2, 1)
    >>> half = torch.full((1, 2), 0.5)
    >>> delta_write(w, x, dy, erase=half, rate=half).item()
    0.25
    """
    erase, rate = alive(erase, valid), alive(rate, valid)
    if x.shape[-2] == 1:
        return _one_token(weight, x, dy, erase, rate, gate, toward)
    start = weight if toward is None else weight - toward
    folded = _fold(start, x, dy, erase, rate, gate)
    if folded is None:
        new = _delta(start, x, dy, erase, rate, gate)
    else:
        new = _delta(*folded).view(start.shape)
    return new if toward is None else new + toward


def _one_token(
    weight: Tensor,
    x: Tensor,
    dy: Tensor,
    erase: Tensor,
    rate: Tensor,
    gate: Retention | None,
    toward: Tensor | None,
) -> Tensor:
    """The recurrence as written: what is stored along the input is taken away with the gradient."""
    stored, kept = apply_weight(x, weight), weight
    if toward is not None:
        stored = stored - _shared_answer(x, toward)
    if gate is not None:
        total = gate.total[..., None, None]
        kept = weight * total if toward is None else torch.lerp(toward, weight, total)
    taken = erase.unsqueeze(-1) * stored + rate.unsqueeze(-1) * dy
    rows = x.expand(*taken.shape[:-1], x.shape[-1])
    factors = _flat(taken).mT, _flat(rows)
    if gate is None:
        return torch.baddbmm(_flat(kept), *factors, alpha=-1).view(weight.shape)
    # What a gate has left is a new tensor.
    return _flat(kept).baddbmm_(*factors, alpha=-1).view(weight.shape)


def _shared_answer(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight^T` for one token; a weight without an axis of samples answers all in one product."""
    if weight.dim() == x.dim():
        return apply_weight(x, weight)
    rows = x.squeeze(-2).movedim(0, -2)
    return apply_weight(rows, weight).movedim(-2, 0).unsqueeze(-2)


def apply_weight(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight^T` for `x [*lead, C, i]` and a weight `[*lead, o, i]`.

    Inputs shared by the memories side by side (size 1 in the last axis of `lead`) make one product
    with the weights below one another.

    >>> apply_weight(torch.ones(1, 1, 3, 2), torch.ones(1, 5, 4, 2)).shape
    torch.Size([1, 5, 3, 4])
    """
    if weight.dim() < 3 or x.shape[-3] != 1 or weight.shape[-3] == 1:
        return x @ weight.mT
    below = weight.flatten(-3, -2)
    y: Tensor = (x.squeeze(-3) @ below.mT).unflatten(-1, weight.shape[-3:-1])
    return y.transpose(-3, -2)


def lift(flags: Tensor, like: Tensor) -> Tensor:
    """`[B, C]` to `[B, 1, .., 1, C]`, as many axes as `like`."""
    return flags.view(flags.shape[0], *(1,) * (like.dim() - 2), flags.shape[1])


def alive(rate: Tensor, valid: Tensor | None) -> Tensor:
    return rate if valid is None else rate.masked_fill(~lift(valid, rate), 0.0)


def valid_gates(
    retain: Tensor | None, log_retain: Tensor | None, valid: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Log gates and plain gates, the identity where no token is."""
    if valid is None:
        return log_retain, retain
    if log_retain is not None:
        return log_retain.masked_fill(~lift(valid, log_retain), 0.0), None
    assert retain is not None
    return None, retain.masked_fill(~lift(valid, retain), 1.0)


def _fold(
    start: Tensor, x: Tensor, dy: Tensor, erase: Tensor, rate: Tensor, gate: Retention | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Retention | None] | None:
    """Memories side by side with the same inputs and rates are one memory with more outputs."""
    if start.dim() < 4 or start.shape[-3] == 1:
        return None
    gates = () if gate is None else gate[:2]
    if x.shape[-3] != 1 or any(g.shape[-2] != 1 for g in (erase, rate, *gates[:1])):
        return None
    if gate is not None:
        assert gate.scores is not None and gate.carried is not None
        scores, carried = gate.scores.squeeze(-3), gate.carried.squeeze(-2)
        gate = Retention(gate.to_end.squeeze(-2), gate.total.squeeze(-1), scores, carried)
    return (
        start.flatten(-3, -2),
        x.squeeze(-3),
        dy.transpose(-3, -2).flatten(-2),
        erase.squeeze(-2),
        rate.squeeze(-2),
        gate,
    )


def _delta(
    start: Tensor, x: Tensor, dy: Tensor, erase: Tensor, rate: Tensor, gate: Retention | None
) -> Tensor:
    lead, size = start.shape[:-2], x.shape[-2]
    x, dy = x.expand(*lead, *x.shape[-2:]), dy.expand(*lead, *dy.shape[-2:])
    erase, rate = erase.expand(*lead, size), rate.expand(*lead, size)
    if gate is None:
        scores, ones = causal_mask(size, x, strict=True), x.new_ones(size)
        gate = Retention(ones, x.new_ones(()), scores, ones)
    new: Tensor = _DeltaWrite.apply(  # type: ignore[no-untyped-call]
        start, x, dy, erase, rate, gate.scores, gate.carried, gate.to_end, gate.total
    )
    return new


def _flat(x: Tensor) -> Tensor:
    """All leading axes of a matrix as one."""
    return x.flatten(0, -3)


class _DeltaWrite(torch.autograd.Function):
    """`delta_write` on `D`; `scores`, `carried`, `to_end`, `total` broadcast against the leading axes."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        start, x, dy, erase, rate, scores, carried, to_end, total = inputs
        x_, start_ = _flat(x), _flat(start)
        gram = torch.bmm(x_, x_.mT).view(*x.shape[:-1], x.shape[-2])
        inverse = unit_lower_inverse(_flat((gram * scores).mul_(erase.unsqueeze(-1))))
        wanted = torch.bmm(x_, start_.mT).view(dy.shape).mul_((erase * carried).unsqueeze(-1))
        wanted.addcmul_(dy, rate.unsqueeze(-1))
        added = torch.bmm(inverse, _flat(wanted)).neg_()
        if results_wanted():
            new = (start * total[..., None, None]).contiguous()
            _flat(new).baddbmm_(added.mT, _flat(x * to_end.unsqueeze(-1)))
        else:
            new = torch.zeros((), dtype=start.dtype, device=start.device).expand_as(start)
        ctx.save_for_backward(start, x, dy, erase, rate, scores, carried, to_end, total, inverse, added)
        return new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        start, x, dy, erase, rate, scores, carried, to_end, total, inverse, added = ctx.saved_tensors
        (d_new,) = grads
        x_, d_new_ = _flat(x), _flat(d_new)
        d_total = (d_new * start).sum((-1, -2)).sum_to_size(total.shape)
        # The write: new += added^T (x * to_end).
        dx = torch.bmm(added, d_new_).view(x.shape)
        d_end = torch.linalg.vecdot(dx, x)
        dx.mul_(to_end.unsqueeze(-1))
        d_added = torch.bmm(x_, d_new_.mT).view(dy.shape).mul_(to_end.unsqueeze(-1))
        # The solve: added = -inverse (erase carried (x D^T) + rate dy).
        flow = torch.bmm(inverse.mT, _flat(d_added)).neg_()
        d_strict = torch.bmm(flow, added.mT).tril_(-1).view(*x.shape[:-1], x.shape[-2])
        flow = flow.view(dy.shape)
        d_dy, d_rate = flow * rate.unsqueeze(-1), torch.linalg.vecdot(flow, dy)
        seen = torch.bmm(_flat(flow), _flat(start)).view(x.shape)
        d_seen = torch.linalg.vecdot(seen, x)
        weight = erase * carried
        dx.addcmul_(seen, weight.unsqueeze(-1))
        d_start = (d_new * total[..., None, None]).contiguous()
        _flat(d_start).baddbmm_(_flat(flow).mT, _flat(x * weight.unsqueeze(-1)))
        # The system: strict = erase * (x x^T) * scores.
        gram = torch.bmm(x_, x_.mT).view(d_strict.shape)
        d_erase = d_seen * carried
        d_scores = None
        if ctx.needs_input_grad[5]:
            gram.mul_(d_strict)
            d_erase += torch.linalg.vecdot(gram, scores.expand_as(gram))
            d_scores = gram.mul_(erase.unsqueeze(-1)).sum_to_size(scores.shape)
            d_strict.mul_(scores)
        else:
            d_strict.mul_(scores)
            d_erase += torch.linalg.vecdot(gram, d_strict)
        by_gram = _flat(d_strict.mul_(erase.unsqueeze(-1)))
        _flat(dx).baddbmm_(by_gram, x_).baddbmm_(by_gram.mT, x_)
        d_carried = (d_seen * erase).sum_to_size(carried.shape)
        return (
            d_start,
            dx,
            d_dy,
            d_erase,
            d_rate,
            d_scores,
            d_carried,
            d_end.sum_to_size(to_end.shape),
            d_total,
        )
