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
    return _pulled("silu", grad, x)


def gelu_pullback(grad: Tensor | float, x: Tensor) -> Tensor:
    """`grad * gelu'(x)` in one pass; its own gradient in a few.

    >>> x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    >>> gelu_pullback(torch.ones_like(x), x).item()
    0.5
    """
    return _pulled("gelu", grad, x)


def silu_bend(upstream: Tensor, slope: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """`upstream grad silu''(x)` from `slope = upstream silu'(x)`.

    >>> silu_bend(torch.ones(1), torch.full((1,), 0.5), torch.ones(1), torch.zeros(1)).item()
    0.5
    """
    bend = torch.sub(upstream, slope, alpha=2.0).mul_(torch.sigmoid(x)).add_(slope)
    return bend.mul_(grad)


def _gelu_bend(upstream: Tensor, _: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """`upstream grad gelu''(x)`: `gelu''(x) = (2 - x^2) p(x)`, `p` the normal density."""
    square = x * x
    density = square.mul(-0.5).exp_().mul_(1.0 / math.sqrt(2.0 * math.pi))
    return density.mul_(square.neg_().add_(2.0)).mul_(grad).mul_(upstream)


_SLOPES: dict[str, Any] = {"silu": torch.ops.aten.silu_backward, "gelu": torch.ops.aten.gelu_backward}
_BENDS = {"silu": silu_bend, "gelu": _gelu_bend}


def _pulled(name: str, grad: Tensor | float, x: Tensor) -> Tensor:
    grad = grad if isinstance(grad, Tensor) else x.new_full((), grad)
    if not torch.is_grad_enabled() and grad.shape == x.shape:
        return _SLOPES[name](grad, x)  # type: ignore[no-any-return]
    result: Tensor = _Pullback.apply(name, grad, x)  # type: ignore[no-untyped-call]
    return result


class _Pullback(torch.autograd.Function):
    """`g f'(x)`; for `u` above, its gradients are `u f'(x)` and `u g f''(x)`."""

    @staticmethod
    def forward(ctx: Any, name: str, grad: Tensor, x: Tensor) -> Tensor:
        ctx.name = name
        grad, x = torch.broadcast_tensors(grad, x)
        ctx.save_for_backward(grad, x)
        return _SLOPES[name](grad, x)  # type: ignore[no-any-return]

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[None, Tensor, Tensor | None]:
        grad, x = ctx.saved_tensors
        (upstream,) = grads
        to_grad = _SLOPES[ctx.name](upstream, x)
        if not ctx.needs_input_grad[2]:
            return None, to_grad, None
        return None, to_grad, _BENDS[ctx.name](upstream, to_grad, grad, x)
