"""Backward passes that have no derivative of their own, and say so where one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.each_gradient import Unpacked, each_gradient
from nldsl.runtime.precision import as_given, under_autocast

CODE = "NL0977"


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A `backward` that is not differentiated itself: its gradients hang on all they were computed from.

    What torch offers (`once_differentiable`) looks at the gradients that come in alone.  Where those are
    constants, as behind a sum, it hands out constants, and a derivative of them would be zero in silence.
    Called under autocast it computes as the pass forward did, and for a batch of gradients once for each.

    >>> class Square(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...     @staticmethod
    ...     @first_order
    ...     def backward(ctx, d):
    ...         return 2 * d * ctx.saved_tensors[0]
    >>> x = torch.ones(1, requires_grad=True)
    >>> (slope,) = torch.autograd.grad(Square.apply(x).sum(), x, create_graph=True)
    >>> slope.sum().backward()
    Traceback (most recent call last):
    RuntimeError: NL0977: ...
    """

    @each_gradient
    @wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        came = next(g for g in grads if g is not None)
        if torch.compiler.is_compiling():
            # Where the pass forward was called under autocast, its pass back is traced under it.
            with torch.autocast(came.device.type, enabled=False):
                return backward(ctx, *grads)
        if any(g is not None and g.is_neg() for g in grads):
            # What is only marked as negative, as behind `conj().imag`, is another number where C reads it.
            grads = tuple(None if g is None else g.resolve_neg() for g in grads)
        if not torch.is_grad_enabled() and not under_autocast(came.device):
            return backward(ctx, *grads)
        read = ctx if isinstance(ctx, Unpacked) else Unpacked(ctx)
        with torch.no_grad(), as_given(came.device):
            found = backward(read, *grads)
        return _tied(found, (*read.saved_tensors, *grads)) if torch.is_grad_enabled() else found

    return wrapped


def _tied(found: Any, sources: tuple[Tensor | None, ...]) -> Any:
    """The same gradients, depending on `sources`."""
    asked = [x for x in sources if x is not None and x.requires_grad]
    several = found if isinstance(found, tuple) else (found,)
    known = [g for g in several if g is not None]
    if not asked or not known:
        return found
    tied = iter(_Refused.apply(len(known), *known, *asked))  # type: ignore[no-untyped-call]
    made = tuple(None if g is None else next(tied) for g in several)
    return made if isinstance(found, tuple) else made[0]


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            f"{CODE}: a derivative of gradients is asked for, and the backward passes of nldsl are formulas "
            "that have none: ask for gradients without `create_graph`"
        )
