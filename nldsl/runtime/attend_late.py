"""A few late queries against a long cache of constants, on a CPU: what a segment of `learn` reads.

torch takes so few queries in tiles of 32, and its backward pass makes the gradients of all pairs.
Here every sample is a few products of whole matrices, and what is cached gets no gradient: two products of
five are left on the way back.

Shapes: `q` and the new pairs `[B, T, H, d]`, all pairs `[B, S + T, H, d]`, the new ones last.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.c_calls import traced
from nldsl.runtime.first_order import first_order
from nldsl.runtime.late_loops import back, loop, read
from nldsl.runtime.native import Step
from nldsl.runtime.precision import chosen

FEW = range(16, 257)
"""Numbers of queries that are taken; one by one they have nothing to share."""
KEPT = 1 << 23
"""Bytes of weights of pairs that are kept for the way back; where there are more they are made anew."""
Pairs = tuple[Tensor, Tensor]


def takes(q: Tensor, k: Tensor, v: Tensor, cached: Collection[Tensor]) -> bool:
    """Whether these are plain tensors of a CPU, few queries, a key for every head, constants cached."""
    plain = all(type(x) is Tensor and x.is_cpu and x.dtype == q.dtype for x in (q, k, v))
    same = q.dtype in (torch.float32, torch.float64) and q.shape[:3] == k.shape[:3]
    constant = not torch.is_grad_enabled() or not any(pairs.requires_grad for pairs in cached)
    return plain and same and constant and q.shape[1] in FEW and _called_plainly()


def takes_grown(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """The same where cached pairs have a history, if there are loops in C."""
    return takes(q, k, v, ()) and bool(q.numel() and v.numel()) and loop(q) is not None


def _called_plainly() -> bool:
    return chosen() is None and not traced()


def attend_late(q: Tensor, new: Pairs, every: Pairs, scale: float) -> Tensor:
    """`y_t = sum_i softmax_i(scale q_t . k_i) v_i` over the pairs up to its own; `every`: cached, then new.

    >>> one = torch.ones(1, 16, 1, 1)
    >>> every = torch.ones(1, 17, 1, 1), torch.cat([0 * one[:, :1], one], 1)
    >>> round(attend_late(one, (one, one), every, 1.0)[0, 1].item(), 4)
    0.6667
    """
    keys, values = (pairs.detach() for pairs in every)
    step = loop(q)
    if step is None:
        y: Tensor = _Late.apply(q, *new, keys, values, scale)  # type: ignore[no-untyped-call]
    else:
        y = _InC.apply(q, *new, keys, values, scale, step)  # type: ignore[no-untyped-call]
    return y


def attend_grown(q: Tensor, every: Pairs, scale: float) -> Tensor:
    """The same where `every` pair gets its gradient, the cached ones too; in C, as `takes_grown` asks."""
    y: Tensor = _InC.apply(q, None, None, *every, scale, loop(q))  # type: ignore[no-untyped-call]
    return y


class _InC(torch.autograd.Function):
    """New pairs that are not given by themselves: gradients go to all of them."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Any, v: Any, keys: Tensor, values: Tensor, scale: float, step: Step
    ) -> Tensor:
        y, logs = read(step, q, keys, values, scale)
        ctx.save_for_backward(q, keys, values, y, logs)
        ctx.first, ctx.scale, ctx.step = 0 if k is None else keys.shape[1] - k.shape[1], scale, step
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        dq, dk, dv = back(ctx.step, ctx.saved_tensors, grads[0], ctx.first, ctx.scale)
        new, every = ((dk, dv), (None, None)) if ctx.first else ((None, None), (dk, dv))
        return dq, *new, *every, None, None


class _Late(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, scale: float
    ) -> Tensor:
        ctx.scale = scale
        size = q.shape[0] * q.shape[2] * q.shape[1] * keys.shape[1] * q.element_size()
        keep = any(ctx.needs_input_grad) and size <= KEPT
        y, weights = q.new_empty(*q.shape[:3], values.shape[3]), []
        for b in range(q.shape[0]):
            p = _weights(q[b], keys[b], scale)
            y[b] = torch.bmm(p, values[b].transpose(0, 1)).transpose(0, 1)
            weights += [p] if keep else []
        ctx.save_for_backward(q, keys, values, *weights)
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        (q, keys, values, *weights), dy = ctx.saved_tensors, grads[0]
        new = slice(keys.shape[1] - q.shape[1], None)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(keys[:, new]), torch.empty_like(values[:, new])
        for b in range(q.shape[0]):
            p = weights[b] if weights else _weights(q[b], keys[b], ctx.scale)
            d, rows = dy[b].transpose(0, 1), q[b].transpose(0, 1)
            flow = torch.bmm(d, values[b].permute(1, 2, 0))
            flow = torch._softmax_backward_data(flow, p, -1, p.dtype).mul_(ctx.scale)
            dq[b] = torch.bmm(flow, keys[b].transpose(0, 1)).transpose(0, 1)
            dk[b] = torch.bmm(flow[..., new].mT, rows).transpose(0, 1)
            dv[b] = torch.bmm(p[..., new].mT, d).transpose(0, 1)
        return dq, dk, dv, None, None, None


def _weights(q: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Softmax of the scores `[H, T, S + T]` of one sample; what comes later weighs nothing."""
    scores = torch.bmm(q.transpose(0, 1), keys.permute(1, 2, 0)).mul_(scale)
    tokens = q.shape[0]
    later = q.new_full((tokens, tokens), -torch.inf).triu_(1)
    scores[..., scores.shape[-1] - tokens :].add_(later)
    return torch.softmax(scores, -1)
