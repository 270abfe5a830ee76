"""Products of decays inside a chunk: the causal filters of every memory with retention.

Shapes: `X` anything in front (batch x heads x chunks), `C` tokens of a chunk.  With decays `a_t`:
`after[i, j] = a_{j+1} ... a_i` for `j <= i`, else 0 (what is left at `i` of a write at `j`),
`carried[i] = a_1 ... a_i` (what is left at `i` of the state in front of the chunk),
`to_end[j] = after[C, j]`, `total = carried[C]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order


class DecayKernel(NamedTuple):
    """The decay products of one chunk: `after [X, C, C]`, `carried`, `to_end` `[X, C]`, `total [X]`."""

    after: Tensor
    carried: Tensor
    to_end: Tensor
    total: Tensor


def decay_kernel(log_decay: Tensor | None, decay: Tensor | None = None) -> DecayKernel:
    """Build the kernel of one chunk from log decays, or from plain decays (which may be <= 0).

    Shapes `[X, C]`, `C >= 1`.  Logs never overflow: every exponent is a sum of the logs between two
    tokens.  Plain decays are multiplied one by one, so zeros and signs are exact.

    >>> decay_kernel(None, torch.tensor([[0.5, 0.0, 2.0]])).after
    tensor([[[1., 0., 0.],
             [0., 1., 0.],
             [0., 2., 1.]]])
    """
    given = log_decay if log_decay is not None else decay
    assert given is not None
    if given.shape[-1] == 1:
        carried = given if log_decay is None else given.exp()
        ones = torch.ones_like(carried)
        return DecayKernel(ones.unsqueeze(-1), carried, ones, carried[..., -1])
    function = _LogKernel if log_decay is not None else _PlainKernel
    after, carried, to_end = function.apply(given)  # type: ignore[no-untyped-call]
    return DecayKernel(after, carried, to_end, carried[..., -1])


def decay_to_end(log_decay: Tensor | None, decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return `to_end [.., C]` and `total [..]` alone, for memories of which only the end is needed.

    >>> decay_to_end(None, torch.tensor([0.5, 0.0, 2.0]))
    (tensor([0., 2., 1.]), tensor(0.))
    """
    if log_decay is not None:
        if log_decay.shape[-1] == 1:
            return torch.ones_like(log_decay), log_decay[..., 0].exp()
        later = log_decay.flip(-1).cumsum(-1).flip(-1)
        behind = torch.cat([later[..., 1:], torch.zeros_like(later[..., :1])], -1)
        return behind.exp(), later[..., 0].exp()
    assert decay is not None
    from_end = decay.flip(-1).cumprod(-1).flip(-1)
    behind = torch.cat([from_end[..., 1:], torch.ones_like(from_end[..., :1])], -1)
    return behind, from_end[..., 0]


def before(kernel: DecayKernel) -> tuple[Tensor, Tensor]:
    """The kernel as seen *before* the token's own decay and write: rows moved down by one."""
    if kernel.carried.shape[-1] == 1:
        return torch.zeros_like(kernel.after), torch.ones_like(kernel.carried)
    after = torch.nn.functional.pad(kernel.after, (0, 0, 1, 0))[..., :-1, :]
    carried = torch.nn.functional.pad(kernel.carried, (1, 0), value=1.0)[..., :-1]
    return after, carried


def causal_mask(size: int, like: Tensor, *, strict: bool = False) -> Tensor:
    """A `[size, size]` lower triangle of ones; `strict` leaves the diagonal out."""
    return torch.ones(size, size, dtype=like.dtype, device=like.device).tril_(-1 if strict else 0)


class _LogKernel(torch.autograd.Function):
    """`after = exp(g_i - g_j)`, `carried = exp(g)`, `to_end = exp(g_C - g_j)` with `g = cumsum(log a)`."""

    @staticmethod
    def forward(ctx: Any, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        exact = log_decay.double().cumsum(-1)
        total = exact.to(log_decay.dtype)
        after = total.unsqueeze(-1) - total.unsqueeze(-2)
        if log_decay.dtype != torch.float64:
            # The rounding of the running sums would be seen in their small differences.
            rest = (exact - total).to(log_decay.dtype)
            after.add_(rest.unsqueeze(-1)).sub_(rest.unsqueeze(-2))
        # Zeros above the diagonal twice: `exp` of what would overflow there, or of minus infinity, is slow.
        after.tril_().exp_().tril_()
        carried, to_end = total.exp(), after[..., -1, :].clone()
        ctx.save_for_backward(after, carried)
        return after, carried, to_end

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> Tensor:
        d_after, d_carried, d_to_end = grads
        after, carried = ctx.saved_tensors
        flow = d_after * after
        d_sum = flow.sum(-1) - flow.sum(-2) + d_carried * carried
        d_end = d_to_end * after[..., -1, :]
        d_sum.sub_(d_end)
        d_sum[..., -1] += d_end.sum(-1)
        d_log: Tensor = d_sum.flip(-1).cumsum(-1).flip(-1)
        return d_log


class _PlainKernel(torch.autograd.Function):
    """`after[i] = a_i after[i-1]` plus a one on the diagonal, multiplied up: no division, no logarithm."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size = decay.shape[-1]
        lower = torch.ones(size, size, dtype=torch.bool, device=decay.device).tril_(-1)
        after = torch.where(lower, decay.unsqueeze(-1), 1.0).cumprod(-2).tril_()
        carried = after[..., :, 0] * decay[..., :1]
        ctx.save_for_backward(after, carried)
        return after, carried, after[..., -1, :].clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> Tensor:
        d_after, d_carried, d_to_end = grads
        after, carried = ctx.saved_tensors
        flow = d_after.clone()
        flow[..., -1, :] += d_to_end
        # `a_i` stands in every `after[r, j]` with j < i <= r, between `after[r, i]` and `after[i-1, j]`.
        behind = after.mT @ torch.cat([d_carried.unsqueeze(-1), flow], -1)
        ahead, start = before(DecayKernel(after, carried, carried, carried))
        d_decay: Tensor = torch.linalg.vecdot(behind[..., 1:], ahead) + behind[..., 0] * start
        return d_decay
