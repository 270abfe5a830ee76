"""What happens inside a chunk of a matrix memory, with hand-written backward passes.

Products of matrices are nearly free on a CPU; passes over memory and the bookkeeping of automatic
differentiation are not.  So each step is one function that saves only its inputs and recomputes
scores.  Shapes: `X` = chunks x batch x heads, `C` tokens, `K` key size, `V` value size; the
state `M [X, V, K]` reads `y = M k`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order
from nldsl.runtime.triangular import unit_lower_inverse

CACHE = 2**18
"""Bytes of scores that are worked on together on a CPU."""


def chunk_read(
    q: Tensor, k: Tensor, u: Tensor, scores: Tensor, carried: Tensor | None, state: Tensor
) -> Tensor:
    """`y = ((q k^T) * scores) u + carried * (q M^T)`: what the queries of a chunk read.

    `q`, `k` `[X, C, K]`, `u [X, C, V]`, `scores [X, C, C]` or `[C, C]`, `carried [X, C]` or `None`
    (all ones), `state [X, V, K]`.

    >>> one = torch.ones(1, 1, 1)
    >>> chunk_read(one, one, 2 * one, one, None, 3 * one).item()
    5.0
    """
    y: Tensor = _ChunkRead.apply(q, k, u, scores, carried, state)  # type: ignore[no-untyped-call]
    return y


def chunk_write(k: Tensor, u: Tensor, to_end: Tensor | None) -> Tensor:
    """`u^T (k * to_end)`: what a chunk adds to the state, shape `[X, V, K]`.

    >>> chunk_write(torch.ones(1, 2, 1), torch.ones(1, 2, 1), None).item()
    2.0
    """
    if to_end is None:
        return torch.bmm(u.mT, k)
    added: Tensor = _ChunkWrite.apply(k, u, to_end)  # type: ignore[no-untyped-call]
    return added


def delta_transform(
    k: Tensor, w: Tensor, erase: Tensor, scores: Tensor, carried: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`(I + N)^-1 w` and `(I + N)^-1 (e c k)` with `N = tril(e (k k^T) * scores, -1)`, `c` = `carried`.

    With them the values added by a chunk are `first - second M_0^T`.  Shapes as in `chunk_read`;
    `erase [X, C]`.

    >>> k = torch.ones(1, 2, 1)
    >>> first, _ = delta_transform(k, k, torch.ones(1, 2), torch.ones(2, 2), None)
    >>> first.flatten().tolist()
    [1.0, 0.0]
    """
    target, erased = _DeltaTransform.apply(k, w, erase, scores, carried)  # type: ignore[no-untyped-call]
    return target, erased


def blocks(scores: Tensor, like: Tensor) -> Iterator[slice]:
    """Groups of chunks whose scores fit a core's cache together; on an accelerator all at once.

    Temporaries of a group are small enough to be reused while they are still in the cache, and for
    the allocator to keep: 256 chunks at once spend a third of their time waiting for memory.
    """
    count, size = like.shape[0], scores.shape[-1] * scores.shape[-2] * scores.element_size()
    width = max(1, CACHE // max(1, size)) if like.device.type == "cpu" else max(1, count)
    for start in range(0, count, width):
        yield slice(start, start + width)


def _of(scores: Tensor, part: slice) -> Tensor:
    return scores[part] if scores.dim() == 3 else scores


def _column(x: Tensor) -> Tensor:
    return x.unsqueeze(-1)


class _ChunkRead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, u: Tensor, scores: Tensor, carried: Tensor | None, state: Tensor
    ) -> Tensor:
        ctx.save_for_backward(q, k, u, scores, carried, state)
        y = torch.empty_like(u)
        for part in blocks(scores, q):
            torch.bmm(q[part], state[part].mT, out=y[part])
            if carried is not None:
                y[part].mul_(_column(carried[part]))
            y[part].baddbmm_(torch.bmm(q[part], k[part].mT).mul_(_of(scores, part)), u[part])
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        dy = grads[0].contiguous()
        q, k, u, scores, carried, state = ctx.saved_tensors
        dq, dk, du, d_state = (torch.empty_like(x) for x in (q, k, u, state))
        d_carried = torch.empty_like(carried) if carried is not None else None
        d_scores = torch.empty_like(scores) if ctx.needs_input_grad[3] else None
        for part in blocks(scores, q):
            torch.bmm(dy[part], state[part], out=dq[part])
            q_state = q[part]
            if carried is not None:
                assert d_carried is not None
                d_carried[part] = torch.linalg.vecdot(dq[part], q_state)
                dq[part].mul_(_column(carried[part]))
                q_state = q_state * _column(carried[part])
            torch.bmm(dy[part].mT, q_state, out=d_state[part])
            weights, flow = torch.bmm(q[part], k[part].mT), torch.bmm(dy[part], u[part].mT)
            if d_scores is not None:
                torch.mul(flow, weights, out=d_scores[part])
            torch.bmm(weights.mul_(_of(scores, part)).mT, dy[part], out=du[part])
            flow.mul_(_of(scores, part))
            dq[part].baddbmm_(flow, k[part])
            torch.bmm(flow.mT, q[part], out=dk[part])
        return dq, dk, du, d_scores, d_carried, d_state


class _ChunkWrite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, k: Tensor, u: Tensor, to_end: Tensor) -> Tensor:
        ctx.save_for_backward(k, u, to_end)
        return torch.bmm(u.mT, k * _column(to_end))

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor]:
        (d_added,) = grads
        k, u, to_end = ctx.saved_tensors
        dk = torch.bmm(u, d_added)
        d_end = (dk * k).sum(-1)
        du = torch.bmm(k, d_added.mT).mul_(_column(to_end))
        return dk.mul_(_column(to_end)), du, d_end


class _DeltaTransform(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, k: Tensor, w: Tensor, erase: Tensor, scores: Tensor, carried: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        strict = torch.bmm(k, k.mT).mul_(scores).mul_(_column(erase))
        inverse = unit_lower_inverse(strict)
        rate = erase if carried is None else erase * carried
        target, erased = torch.bmm(inverse, w), torch.bmm(inverse, k * _column(rate))
        ctx.save_for_backward(k, erase, scores, carried, inverse, target, erased)
        return target, erased

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        d_target, d_erased = grads
        k, erase, scores, carried, inverse, target, erased = ctx.saved_tensors
        dw = torch.bmm(inverse.mT, d_target)
        d_keys = torch.bmm(inverse.mT, d_erased)
        flow = torch.bmm(dw, target.mT).baddbmm_(d_keys, erased.mT).tril_(-1).neg_()
        gram = torch.bmm(k, k.mT)
        # N = erase * gram * scores; `flow` is dN.
        d_rate = (d_keys * k).sum(-1)
        rate = erase if carried is None else erase * carried
        by_scores = flow * scores
        d_erase = torch.linalg.vecdot(by_scores, gram)
        d_scores = None
        if ctx.needs_input_grad[3]:
            d_scores = gram.mul_(flow).mul_(_column(erase))
        by_scores.mul_(_column(erase))
        dk = d_keys.mul_(_column(rate))
        dk.baddbmm_(by_scores, k).baddbmm_(by_scores.mT, k)
        if carried is None:
            return dk, dw, d_erase + d_rate, d_scores, None
        return dk, dw, d_erase + d_rate * carried, d_scores, d_rate * erase
