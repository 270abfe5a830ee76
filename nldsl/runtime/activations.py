"""Activations whose gradients occur inside emitted code and therefore need gradients of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def silu_pullback(grad: Tensor, x: Tensor) -> Tensor:
    """`grad * silu'(x)` in one pass; its own gradient in a few.

    >>> x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    >>> silu_pullback(torch.ones_like(x), x).item()
    0.5
    """
    if not torch.is_grad_enabled() and grad.shape == x.shape:
        return torch.ops.aten.silu_backward(grad, x)  # type: ignore[no-any-return]
    result: Tensor = _SiluPullback.apply(grad, x)  # type: ignore[no-untyped-call]
    return result


class _SiluPullback(torch.autograd.Function):
    """`g s (1 + x (1 - s))`; with respect to x it is `g s (1 - s) (2 + x (1 - 2 s))`."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        grad, x = torch.broadcast_tensors(grad, x)
        ctx.save_for_backward(grad, x)
        result: Tensor = torch.ops.aten.silu_backward(grad, x)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None]:
        grad, x = ctx.saved_tensors
        (upstream,) = grads
        to_grad = torch.ops.aten.silu_backward(upstream, x) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_grad, None
        s = torch.sigmoid(x)
        curve = torch.addcmul(x, x, s, value=-2.0).add_(2.0)
        curve.mul_(s).mul_(s.neg_().add_(1.0)).mul_(grad).mul_(upstream)
        return to_grad, curve
