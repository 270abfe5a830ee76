"""From chunk to chunk: the state of any matrix memory, with a hand-written backward pass.

Shapes: `N` chunks, `X` = batch x heads, `C` columns of a chunk, state `[X, D, A]`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order


def memory_scan(
    target: Tensor | None,
    erased: Tensor | None,
    ended: Tensor | None,
    update: Tensor | None,
    total: Tensor,
    state: Tensor,
    between: Tensor | None = None,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """`u_n = target_n - erased_n M_n^T`, `M_{n+1} = M_n total_n + update_n + u_n^T ended_n`.

    Return `u` (`None` without `target`), `M_0 .. M_{N-1}` and `M_N`.  `total [N, X, 1, 1]` or
    `[N, X, 1, A]`; of n states side by side in the columns of `M` it is `[N, X, n, n, 1]`, or
    `[N, X, n, n, A / n]` per channel.  With `between [N, X, D, 1]` rows of `M_{n+1}` are scaled by its
    exponential.

    >>> one = torch.ones(2, 1, 1, 1)
    >>> u, states, last = memory_scan(one, one / 2, one, None, one, torch.zeros(1, 1, 1))
    >>> u.flatten().tolist(), last.item()
    ([1.0, 0.5], 1.5)
    """
    arguments = (target, erased, ended, update, total, state, between)
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
        state: Tensor,
        between: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = total.shape[0]
        factors = None if between is None else between.exp()
        states = state.new_empty(count + 1, *state.shape)
        states[0] = state
        added = torch.empty_like(target) if target is not None else state.new_empty(0)
        for n in range(count):
            old, new = states[n], states[n + 1]
            _mixed(None if update is None else update[n], old, total[n], new)
            if target is not None and erased is not None and ended is not None:
                torch.baddbmm(target[n], erased[n], old.mT, alpha=-1, out=added[n])
                new.baddbmm_(added[n].mT, ended[n])
            if factors is not None:
                new.mul_(factors[n])
        ctx.save_for_backward(erased, ended, total, states, added, factors)
        ctx.has_update = update is not None
        return added, states[:-1], states[-1].clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        d_added, d_states, d_last = grads
        erased, ended, total, states, added, factors = ctx.saved_tensors
        count = total.shape[0]
        flow = torch.empty_like(states)
        flow[count] = d_last
        d_target = torch.empty_like(added) if erased is not None else None
        d_between = None if factors is None else torch.empty_like(factors)
        for n in range(count - 1, -1, -1):
            if factors is not None and d_between is not None:
                torch.sum(flow[n + 1] * states[n + 1], -1, keepdim=True, out=d_between[n])
                flow[n + 1].mul_(factors[n])
            back = total[n].transpose(1, 2) if total.dim() == 5 else total[n]
            _mixed(d_states[n], flow[n + 1], back, flow[n])
            if d_target is not None:
                torch.baddbmm(d_added[n], ended[n], flow[n + 1].mT, out=d_target[n])
                flow[n].baddbmm_(d_target[n].mT, erased[n], alpha=-1)
        d_erased = d_ended = None
        if d_target is not None:
            lead = d_target.shape[:2]
            old, new = states[:-1].flatten(0, 1), flow[1:].flatten(0, 1)
            d_erased = torch.bmm(d_target.flatten(0, 1), old).neg_().unflatten(0, lead)
            d_ended = torch.bmm(added.flatten(0, 1), new).unflatten(0, lead)
        d_update = flow[1:] if ctx.has_update else None
        d_total = _to_total(flow[1:], states[:-1], total)
        return d_target, d_erased, d_ended, d_update, d_total, flow[0], d_between


def _mixed(base: Tensor | None, old: Tensor, total: Tensor, out: Tensor) -> None:
    """`out [X, D, A]`: what is left of a state, or of several side by side, on top of `base`."""
    if total.dim() == 3:
        torch.mul(old, total, out=out) if base is None else torch.addcmul(base, old, total, out=out)
        return
    out.zero_() if base is None else out.copy_(base)
    before, after = (x.unflatten(-1, (total.shape[1], -1)).unbind(2) for x in (old, out))
    for i, new in enumerate(after):
        for j, part in enumerate(before):
            new.addcmul_(part, total[:, i, j, None])


def _to_total(flow: Tensor, states: Tensor, total: Tensor) -> Tensor:
    """The gradient of `total`."""
    if total.dim() == 4:
        return (flow * states).sum_to_size(total.shape)
    n = total.shape[2]
    after, before = (x.unflatten(-1, (n, -1)).movedim(-2, 2) for x in (flow, states))
    if total.shape[-1] == 1:
        found: Tensor = after.flatten(3) @ before.flatten(3).mT
        return found.unsqueeze(-1)
    return torch.stack([(after * old.unsqueeze(2)).sum(3) for old in before.unbind(2)], 3)
