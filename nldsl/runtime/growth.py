"""Caches that grow through the pieces of one call without being copied at every piece."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nldsl.runtime.each_gradient import each_gradient


class Room:
    """Memory for what the pieces of a call append to its caches.

    A cache `[B, S, ...]` gets room for the rest of the call the first time something is appended; the rest is
    then written behind it.  States stay values: only rows that no tensor has shown yet are written.
    """

    def __init__(self, tokens: int) -> None:
        self.left = tokens
        """Tokens from the present piece on."""
        self.width = tokens
        """Tokens of the present piece."""
        self.known: dict[int, tuple[Tensor, int]] = {}
        """By address: memory, and how many rows of it are written."""

    @contextmanager
    def piece(self, width: int) -> Iterator[None]:
        """Inside, a piece of `width` tokens runs forward."""
        self.width = width
        token = _ROOM.set(self)
        try:
            yield
        finally:
            _ROOM.reset(token)
            self.left -= width

    def append(self, old: Tensor, new: Tensor) -> Tensor:
        """`old` and `new` behind it; in the memory of `old` if that is its end."""
        size, more = old.shape[1], new.shape[1]
        memory, filled = self.known.get(old.data_ptr(), (None, size))
        if memory is None:
            rows = size + more * self.left // self.width
            memory = old.new_empty(old.shape[0], rows, *old.shape[2:])
            memory.narrow(1, 0, size).copy_(old.detach())
        if filled != size or memory.shape[1] < size + more or memory.stride() != _strides(old, memory):
            return torch.cat([old, new], 1)
        # `data`: what is saved for backward passes has not changed.
        memory.data.narrow(1, size, more).copy_(new.detach())
        self.known[memory.data_ptr()] = memory, size + more
        whole = memory.data.narrow(1, 0, size + more)
        if torch.is_grad_enabled() and (old.requires_grad or new.requires_grad):
            grown: Tensor = _Grown.apply(old, new, [whole])  # type: ignore[no-untyped-call]
            return grown
        return whole


def _strides(old: Tensor, memory: Tensor) -> tuple[int, ...]:
    """Those of `old`, if it is the beginning of the memory."""
    return old.stride() if old.data_ptr() == memory.data_ptr() else memory.stride()


_ROOM: ContextVar[Room | None] = ContextVar("room", default=None)


def append(old: Tensor, new: Tensor) -> Tensor:
    """`[B, S, ...]` and `[B, T, ...]` behind it, without a copy where the call has room.

    >>> append(torch.zeros(1, 2), torch.ones(1, 1)).tolist()
    [[0.0, 0.0, 1.0]]
    """
    room = _ROOM.get()
    alike = old.dtype == new.dtype and type(old) is Tensor and old.shape[0] == new.shape[0]
    if room is None or not alike or torch.compiler.is_compiling() or not new.numel():
        return torch.cat([old, new], 1)
    return room.append(old, new)


class _Grown(torch.autograd.Function):
    """What is already one piece of memory, as if it had been put together here."""

    @staticmethod
    def forward(ctx: Any, old: Tensor, new: Tensor, whole: list[Tensor]) -> Tensor:
        ctx.size = old.shape[1]
        return whole[0]

    @staticmethod
    @each_gradient
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        g: Tensor = grads[0]
        return g[:, : ctx.size], g[:, ctx.size :], None
