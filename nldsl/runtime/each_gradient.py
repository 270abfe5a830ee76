"""Backward passes under `torch.autograd.grad(.., is_grads_batched=True)`: once for every gradient of a batch.

torch hands such a pass one tensor that hides the axis of the batch: it has no rule for most views of that,
and no memory for loops in C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def each_gradient(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A `backward` that is called once for every gradient where torch hands over a batch of them.

    >>> class Last(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x[..., -1:]
    ...     @staticmethod
    ...     @each_gradient
    ...     def backward(ctx, d):
    ...         return torch.cat([torch.zeros(1), d.flatten()])
    >>> x = torch.ones(2, requires_grad=True)
    >>> torch.autograd.grad(Last.apply(x), x, torch.ones(3, 1), is_grads_batched=True)[0].tolist()
    [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """

    @wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        if torch.compiler.is_compiling() or not any(map(_hides_a_batch, grads)):
            return backward(ctx, *grads)
        level = max(1, _depth())
        batches = {n: _gradients(g, level) for n, g in enumerate(grads) if _hides_a_batch(g)}
        size = next(iter(batches.values())).shape[0]
        several = [[batches[n][i] if n in batches else g for n, g in enumerate(grads)] for i in range(size)]
        read = Unpacked(ctx)
        with _outside():
            found = [backward(read, *each) for each in several]
        if not isinstance(found[0], tuple):
            return _batched(found, level)
        return tuple(_batched(list(alike), level) for alike in zip(*found, strict=True))

    return wrapped


class Unpacked:
    """A context whose saved tensors are unpacked once: `torch.utils.checkpoint` hands each out one time.

    >>> class Twice(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return 2 * x
    ...     @staticmethod
    ...     def backward(ctx, d):
    ...         read = Unpacked(ctx)
    ...         print(read.saved_tensors[0] is read.saved_tensors[0], read.needs_input_grad)
    ...         return 2 * d
    >>> Twice.apply(torch.ones(1, requires_grad=True)).backward()
    True (True,)
    """

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.saved_tensors: tuple[Tensor | None, ...] = ctx.saved_tensors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ctx, name)


def _hides_a_batch(g: Any) -> bool:
    return isinstance(g, Tensor) and torch._C._functorch.is_legacy_batchedtensor(g)


def _depth() -> int:
    """How many batches this thread is in; one of torch's that only runs passes back does not count them."""
    above: int = torch._C._vmapmode_increment_nesting()
    torch._C._vmapmode_decrement_nesting()
    return above - 1


@contextmanager
def _outside() -> Iterator[None]:
    """Inside, this thread is in one batch less: there are no random numbers in one, and probes draw some."""
    inside = _depth() > 0
    if inside:
        torch._C._vmapmode_decrement_nesting()
    try:
        yield
    finally:
        if inside:
            torch._C._vmapmode_increment_nesting()


def _gradients(g: Tensor, level: int) -> Tensor:
    """The gradients of a batch, `[N, ..]`."""
    # The size is read only where a tensor has no such batch.
    found: Tensor = torch._remove_batch_dim(g, level, 1, 0)
    return found


def _batched(found: list[Any], level: int) -> Any:
    if found[0] is None:
        return None
    return torch._add_batch_dim(torch.stack(found), 0, level)
