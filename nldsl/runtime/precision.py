"""Autocast: products with weights and attention in half precision, what memories do in that of the weights.

A memory sums over thousands of tokens, and a gate near one is not a number of eight bits: states, gates,
scans and inner gradients keep float32 under `torch.autocast`, and only `linear`, `head` and the reads of
attention are lowered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


class _Chosen(threading.local):
    """The half precision of this thread, inside a model under autocast."""

    kind: torch.dtype | None = None


_chosen = _Chosen()


@contextmanager
def islands(device: torch.device) -> Iterator[None]:
    """Inside, autocast is off but for what asks by `in_half`.

    >>> with torch.autocast("cpu", torch.bfloat16), islands(torch.device("cpu")):
    ...     plain = torch.ones(2, 2) @ torch.ones(2, 2)
    ...     kinds = []
    ...     lowered = in_half(lambda a, b: (kinds.append(a.dtype), a @ b)[1], torch.eye(2), torch.eye(2))
    >>> plain.dtype, kinds, lowered.dtype
    (torch.float32, [torch.bfloat16], torch.float32)
    """
    before, _chosen.kind = _chosen.kind, torch.get_autocast_dtype(device.type)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _chosen.kind = before


def chosen() -> torch.dtype | None:
    """The half precision of this thread, inside a model under autocast."""
    return _chosen.kind


@contextmanager
def restored(kind: torch.dtype | None) -> Iterator[None]:
    """What `chosen` said in a forward pass, for what is computed again behind it."""
    before, _chosen.kind = _chosen.kind, kind
    try:
        yield
    finally:
        _chosen.kind = before


def keeps_islands(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a model that runs inside `islands` where autocast is on for its device.

    What other modules made in half precision comes in as the parameters are.
    """

    @wraps(method)
    def inside(self: Any, *args: Any, **options: Any) -> Any:
        like: Tensor = self.root.like
        if not _under_autocast(like.device):
            return method(self, *args, **options)
        with islands(like.device):
            return method(self, *(_widened(x, like) for x in args), **options)

    return inside


def _widened(x: Any, like: Tensor) -> Any:
    half = isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.to(like.dtype) if half else x


def _under_autocast(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda", "xpu", "mps") and torch.is_autocast_enabled(device.type)


@contextmanager
def as_given(device: torch.device) -> Iterator[None]:
    """For a pass back that is called under autocast: it lowers nothing that the pass forward did not."""
    with torch.autocast(device.type, enabled=False) if _under_autocast(device) else nullcontext():
        yield


def in_half(function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """`function(*tensors)`, float32 ones in half precision under autocast; the type of the first."""
    kind, first = _chosen.kind, tensors[0]
    assert first is not None
    if kind is None or first.dtype != torch.float32:
        return function(*tensors)
    return function(*(None if t is None else t.to(kind) for t in tensors)).to(first.dtype)
