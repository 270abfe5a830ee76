"""From chunk to chunk: the two recurrences over chunk states, with hand-written backward passes.

Shapes: `N` chunks, `X` = batch x heads, `C` tokens, state `[X, dv, dk]` (`y = M k`).
Only the small steps run in the loop; everything else is batched over all chunks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order


def decay_scan(total: Tensor, update: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`M_{n+1} = total_n M_n + update_n`; return `M_0 .. M_{N-1}`, `[N, X, dv, dk]`, and `M_N`.

    `total [N, X]`, `update [N, X, dv, dk]`, `state [X, dv, dk]`.

    >>> before, last = decay_scan(torch.full((2, 1), 0.5), torch.ones(2, 1, 1, 1), torch.ones(1, 1, 1))
    >>> before.flatten().tolist(), last.item()
    ([1.0, 1.5], 1.75)
    """
    before, last = _DecayScan.apply(total[..., None, None], update, state)  # type: ignore[no-untyped-call]
    return before, last


def delta_scan(
    target: Tensor, erased: Tensor, key_end: Tensor, total: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`d_n = target_n - erased_n M_n^T`, `M_{n+1} = total_n M_n + d_n^T key_end_n`.

    Return `d`, `M_0 .. M_{N-1}` and `M_N`.

    `target [N, X, C, dv]`, `erased`, `key_end` `[N, X, C, dk]`, `total [N, X]`.  This is the affine
    recurrence of the delta rule with its transition left in two factors.
    """
    written, before, last = _DeltaScan.apply(target, erased, key_end, total[..., None, None], state)  # type: ignore[no-untyped-call]
    return written, before, last


class _DecayScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: Tensor, update: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        count = update.shape[0]
        states = update.new_empty(count + 1, *state.shape)
        states[0] = state
        for n in range(count):
            torch.addcmul(update[n], total[n], states[n], out=states[n + 1])
        ctx.save_for_backward(total, states)
        return states[:-1], states[-1].clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor]:
        d_states, d_last = grads
        total, states = ctx.saved_tensors
        count = total.shape[0]
        flow = torch.empty_like(states)
        flow[count] = d_last
        for n in range(count - 1, -1, -1):
            torch.addcmul(d_states[n], total[n], flow[n + 1], out=flow[n])
        d_total = (flow[1:] * states[:-1]).sum((-1, -2), keepdim=True)
        return d_total, flow[1:], flow[0]


class _DeltaScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, target: Tensor, erased: Tensor, key_end: Tensor, total: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = target.shape[0]
        states = target.new_empty(count + 1, *state.shape)
        states[0] = state
        written = torch.empty_like(target)
        for n in range(count):
            torch.baddbmm(target[n], erased[n], states[n].mT, alpha=-1, out=written[n])
            torch.mul(states[n], total[n], out=states[n + 1])
            states[n + 1].baddbmm_(written[n].mT, key_end[n])
        ctx.save_for_backward(erased, key_end, total, states, written)
        return written, states[:-1], states[-1].clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        d_written, d_states, d_last = grads
        erased, key_end, total, states, written = ctx.saved_tensors
        count, lead = written.shape[0], written.shape[:2]
        flow = torch.empty_like(states)
        d_target = torch.empty_like(written)
        flow[count] = d_last
        for n in range(count - 1, -1, -1):
            torch.baddbmm(d_written[n], key_end[n], flow[n + 1].mT, out=d_target[n])
            torch.addcmul(d_states[n], flow[n + 1], total[n], out=flow[n])
            flow[n].baddbmm_(d_target[n].mT, erased[n], alpha=-1)
        old, new = states[:-1].flatten(0, 1), flow[1:].flatten(0, 1)
        d_erased = torch.bmm(d_target.flatten(0, 1), old).neg_().unflatten(0, lead)
        d_key_end = torch.bmm(written.flatten(0, 1), new).unflatten(0, lead)
        d_total = (flow[1:] * states[:-1]).sum((-1, -2), keepdim=True)
        return d_target, d_erased, d_key_end, d_total, flow[0]
