"""From chunk to chunk: the state of any matrix memory, with a hand-written backward pass.

Shapes: `N` chunks, `X` = batch x heads, `C` columns of a chunk, state `[X, D, A]`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def memory_scan(
    target: Tensor | None,
    erased: Tensor | None,
    ended: Tensor | None,
    update: Tensor | None,
    total: Tensor,
    mix: Tensor | None,
    state: Tensor,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """`u_n = target_n - erased_n M_n^T`, `M_{n+1} = M_n total_n + update_n + u_n^T ended_n`.

    Return `u` (`None` without `target`), `M_0 .. M_{N-1}` and `M_N`.  `total [N, X, 1, 1]` or
    `[N, X, 1, A]`; `mix [N, X, 1, 1]` adds the second half of the columns of `M_n`, times itself, to the
    first half of `M_{n+1}`.

    >>> one = torch.ones(2, 1, 1, 1)
    >>> u, states, last = memory_scan(one, one / 2, one, None, one, None, torch.zeros(1, 1, 1))
    >>> u.flatten().tolist(), last.item()
    ([1.0, 0.5], 1.5)
    """
    arguments = (target, erased, ended, update, total, mix, state)
    added, states, last = _MemoryScan.apply(*arguments)  # type: ignore[no-untyped-call]
    return (None if target is None else added), states, last


class _MemoryScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        target: Tensor | None,
        erased: Tensor | None,
        ended: Tensor | None,
        update: Tensor | None,
        total: Tensor,
        mix: Tensor | None,
        state: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, half = total.shape[0], state.shape[-1] // 2
        states = state.new_empty(count + 1, *state.shape)
        states[0] = state
        added = torch.empty_like(target) if target is not None else state.new_empty(0)
        for n in range(count):
            old, new = states[n], states[n + 1]
            if update is None:
                torch.mul(old, total[n], out=new)
            else:
                torch.addcmul(update[n], old, total[n], out=new)
            if mix is not None:
                new[..., :half].addcmul_(old[..., half:], mix[n])
            if target is not None and erased is not None and ended is not None:
                torch.baddbmm(target[n], erased[n], old.mT, alpha=-1, out=added[n])
                new.baddbmm_(added[n].mT, ended[n])
        ctx.save_for_backward(erased, ended, total, mix, states, added)
        ctx.has_update = update is not None
        return added, states[:-1], states[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        d_added, d_states, d_last = grads
        erased, ended, total, mix, states, added = ctx.saved_tensors
        count, half = total.shape[0], states.shape[-1] // 2
        flow = torch.empty_like(states)
        flow[count] = d_last
        d_target = torch.empty_like(added) if erased is not None else None
        for n in range(count - 1, -1, -1):
            torch.addcmul(d_states[n], flow[n + 1], total[n], out=flow[n])
            if mix is not None:
                flow[n][..., half:].addcmul_(flow[n + 1][..., :half], mix[n])
            if d_target is not None:
                torch.baddbmm(d_added[n], ended[n], flow[n + 1].mT, out=d_target[n])
                flow[n].baddbmm_(d_target[n].mT, erased[n], alpha=-1)
        d_erased = d_ended = d_mix = None
        if d_target is not None:
            lead = d_target.shape[:2]
            old, new = states[:-1].flatten(0, 1), flow[1:].flatten(0, 1)
            d_erased = torch.bmm(d_target.flatten(0, 1), old).neg_().unflatten(0, lead)
            d_ended = torch.bmm(added.flatten(0, 1), new).unflatten(0, lead)
        d_total = (flow[1:] * states[:-1]).sum_to_size(total.shape)
        if mix is not None:
            d_mix = (flow[1:][..., :half] * states[:-1][..., half:]).sum((-1, -2), keepdim=True)
        d_update = flow[1:] if ctx.has_update else None
        return d_target, d_erased, d_ended, d_update, d_total, d_mix, flow[0]
