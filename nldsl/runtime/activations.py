"""Activations whose gradients occur inside emitted code and therefore need gradients of their own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order


def silu_pullback(grad: Tensor | float, x: Tensor) -> Tensor:
    """`grad * silu'(x)` in one pass; its own gradient in a few.

    >>> x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    >>> silu_pullback(torch.ones_like(x), x).item()
    0.5
    """
    grad = grad if isinstance(grad, Tensor) else x.new_full((), grad)
    if not torch.is_grad_enabled() and grad.shape == x.shape:
        return torch.ops.aten.silu_backward(grad, x)  # type: ignore[no-any-return]
    result: Tensor = _SiluPullback.apply(grad, x)  # type: ignore[no-untyped-call]
    return result


class _SiluPullback(torch.autograd.Function):
    """`g s (1 + x (1 - s))`; with `p` its gradient for `u` above, that at x is `g (p + s (u - 2 p))`."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        grad, x = torch.broadcast_tensors(grad, x)
        ctx.save_for_backward(grad, x)
        result: Tensor = torch.ops.aten.silu_backward(grad, x)
        return result

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None]:
        grad, x = ctx.saved_tensors
        (upstream,) = grads
        to_grad = torch.ops.aten.silu_backward(upstream, x)
        if not ctx.needs_input_grad[1]:
            return to_grad, None
        return to_grad, silu_bend(upstream, to_grad, grad, x)


def gelu_pullback(grad: Tensor | float, x: Tensor) -> Tensor:
    """`grad * gelu'(x)` in one pass; its own gradient in a few.

    >>> x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    >>> gelu_pullback(torch.ones_like(x), x).item()
    0.5
    """
    grad = grad if isinstance(grad, Tensor) else x.new_full((), grad)
    if not torch.is_grad_enabled() and grad.shape == x.shape:
        return torch.ops.aten.gelu_backward(grad, x)  # type: ignore[no-any-return]
    result: Tensor = _GeluPullback.apply(grad, x)  # type: ignore[no-untyped-call]
    return result


class _GeluPullback(torch.autograd.Function):
    """`g gelu'(x)`; for `u` above, the gradient at x is `u g (2 - x^2) p(x)`, `p` the normal density."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        grad, x = torch.broadcast_tensors(grad, x)
        ctx.save_for_backward(grad, x)
        result: Tensor = torch.ops.aten.gelu_backward(grad, x)
        return result

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None]:
        grad, x = ctx.saved_tensors
        (upstream,) = grads
        to_grad = torch.ops.aten.gelu_backward(upstream, x)
        if not ctx.needs_input_grad[1]:
            return to_grad, None
        square = x * x
        density = square.mul(-0.5).exp_().mul_(1.0 / math.sqrt(2.0 * math.pi))
        return to_grad, density.mul_(square.neg_().add_(2.0)).mul_(grad).mul_(upstream)


def silu_bend(upstream: Tensor, slope: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """`upstream grad silu''(x)` from `slope = upstream silu'(x)`.

    >>> silu_bend(torch.ones(1), torch.full((1,), 0.5), torch.ones(1), torch.zeros(1)).item()
    0.5
    """
    bend = torch.sub(upstream, slope, alpha=2.0).mul_(torch.sigmoid(x)).add_(slope)
    return bend.mul_(grad)
