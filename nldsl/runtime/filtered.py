"""What happens inside a chunk of a memory with momentum, with hand-written backward passes.

The state is `[M | P]`: what a row sees of it fades by two numbers, `fading [X, C, 2]`.  As in `attend`, every
step is one function that saves its inputs and computes scores again.  Shapes: `X` chunks x batch x heads, `C`
tokens, `K` key size, `V` value size, state `[X, V, 2 K]`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nldsl.runtime.attend import blocks
from nldsl.runtime.triangular import unit_lower_inverse


def filtered_transform(
    k: Tensor, w: Tensor, erase: Tensor, scores: Tensor, fading: Tensor
) -> tuple[Tensor, Tensor]:
    """`Y w` and `Y e [f_0 k | f_1 k]` with `Y = (I + tril(e (k k^T) * scores, -1))^-1`.

    `k [X, C, K]`, `w [X, C, V]`, `erase [X, C]`, `scores [X, C, C]`.

    >>> k = torch.ones(1, 2, 1)
    >>> target, erased = filtered_transform(k, k, k[..., 0], torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    >>> target.flatten().tolist(), erased.shape
    ([1.0, 0.0], torch.Size([1, 2, 2]))
    """
    target, erased = _Transform.apply(k, w, erase, scores, fading)  # type: ignore[no-untyped-call]
    return target, erased


def filtered_read(q: Tensor, k: Tensor, u: Tensor, scores: Tensor, fading: Tensor, state: Tensor) -> Tensor:
    """`y = ((q k^T) * scores) u + f_0 (q M^T) + f_1 (q P^T)`.

    >>> one = torch.ones(1, 1, 1)
    >>> filtered_read(one, one, one, one, torch.ones(1, 1, 2), torch.ones(1, 1, 2)).item()
    3.0
    """
    y: Tensor = _Read.apply(q, k, u, scores, fading, state)  # type: ignore[no-untyped-call]
    return y


def _both(k: Tensor, rates: Tensor) -> Tensor:
    """`[r_0 k | r_1 k]`."""
    return (k.unsqueeze(-2) * rates.unsqueeze(-1)).flatten(-2)


class _Transform(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, k: Tensor, w: Tensor, erase: Tensor, scores: Tensor, fading: Tensor
    ) -> tuple[Tensor, Tensor]:
        inverse = torch.empty_like(scores)
        target, erased = torch.empty_like(w), k.new_empty(*k.shape[:2], 2 * k.shape[2])
        for part in blocks(scores, k):
            strict = torch.bmm(k[part], k[part].mT).mul_(scores[part]).mul_(erase[part].unsqueeze(-1))
            inverse[part] = unit_lower_inverse(strict)
            torch.bmm(inverse[part], w[part], out=target[part])
            rates = fading[part] * erase[part].unsqueeze(-1)
            torch.bmm(inverse[part], _both(k[part], rates), out=erased[part])
        ctx.save_for_backward(k, erase, scores, fading, inverse, target, erased)
        return target, erased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        d_target, d_erased = (g.contiguous() for g in grads)
        k, erase, scores, fading, inverse, target, erased = ctx.saved_tensors
        dk, dw, d_scores = torch.empty_like(k), torch.empty_like(target), torch.empty_like(scores)
        d_erase, d_fading = torch.empty_like(erase), torch.empty_like(fading)
        for part in blocks(scores, k):
            keys, rate = k[part], erase[part].unsqueeze(-1)
            torch.bmm(inverse[part].mT, d_target[part], out=dw[part])
            d_both = torch.bmm(inverse[part].mT, d_erased[part])
            flow = torch.bmm(dw[part], target[part].mT)
            flow.baddbmm_(d_both, erased[part].mT).tril_(-1).neg_()
            d_both = d_both.unflatten(-1, (2, -1))
            d_rates = torch.linalg.vecdot(d_both, keys.unsqueeze(-2))
            torch.mul(d_rates, rate, out=d_fading[part])
            gram = torch.bmm(keys, keys.mT).mul_(flow)
            d_erase[part] = torch.linalg.vecdot(gram, scores[part])
            d_erase[part] += (d_rates * fading[part]).sum(-1)
            torch.mul(gram, rate, out=d_scores[part])
            flow.mul_(scores[part]).mul_(rate)
            rates = fading[part] * rate
            torch.mul(d_both[..., 0, :], rates[..., :1], out=dk[part])
            dk[part].addcmul_(d_both[..., 1, :], rates[..., 1:])
            dk[part].baddbmm_(flow, keys).baddbmm_(flow.mT, keys)
        return dk, dw, d_erase, d_scores, d_fading


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, u: Tensor, scores: Tensor, fading: Tensor, state: Tensor
    ) -> Tensor:
        ctx.save_for_backward(q, k, u, scores, fading, state)
        y = torch.empty_like(u)
        for part in blocks(scores, q):
            torch.bmm(_both(q[part], fading[part]), state[part].mT, out=y[part])
            y[part].baddbmm_(torch.bmm(q[part], k[part].mT).mul_(scores[part]), u[part])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        dy = grads[0].contiguous()
        q, k, u, scores, fading, state = ctx.saved_tensors
        made = tuple(torch.empty_like(x) for x in (q, k, u, scores, fading, state))
        dq, dk, du, d_scores, d_fading, d_state = made
        for part in blocks(scores, q):
            d_both = torch.bmm(dy[part], state[part]).unflatten(-1, (2, -1))
            torch.linalg.vecdot(d_both, q[part].unsqueeze(-2), out=d_fading[part])
            torch.mul(d_both[..., 0, :], fading[part][..., :1], out=dq[part])
            dq[part].addcmul_(d_both[..., 1, :], fading[part][..., 1:])
            torch.bmm(dy[part].mT, _both(q[part], fading[part]), out=d_state[part])
            weights, flow = torch.bmm(q[part], k[part].mT), torch.bmm(dy[part], u[part].mT)
            torch.mul(flow, weights, out=d_scores[part])
            torch.bmm(weights.mul_(scores[part]).mT, dy[part], out=du[part])
            flow.mul_(scores[part])
            dq[part].baddbmm_(flow, k[part])
            torch.bmm(flow.mT, q[part], out=dk[part])
        return made
