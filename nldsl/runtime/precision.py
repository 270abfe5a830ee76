"""Autocast: products with weights and attention in half precision, what memories do in that of the weights.

A memory sums over thousands of tokens, and a gate near one is not a number of eight bits: states, gates,
scans and inner gradients keep float32 under `torch.autocast`, and only `linear`, `head` and the reads of
attention are lowered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._C import _is_any_autocast_enabled as _any_autocast


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
        if not under_autocast(like.device):
            return method(self, *args, **options)
        with islands(like.device):
            result = method(self, *(_entered(_widened(x, like)) for x in args), **options)
        return _returned(result)

    return inside


def _widened(x: Any, like: Tensor) -> Any:
    half = isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.to(like.dtype) if half else x


LEAVES = ("AccumulateGrad", "NoneType")
KINDS = ("cpu", "cuda", "xpu", "mps")
"""Devices that have types chosen by autocast."""


class _Entered(torch.autograd.Function):
    """Where a gradient leaves the module, on its way to what the caller computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _Returned(torch.autograd.Function):
    """Where a gradient comes into the module: behind it nothing is lowered, as nothing was before.

    Autocast would lower the products in torch's own derivatives of what ran in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        device = grads[0].device
        if under_autocast(device):
            _lower_nothing(ctx, device.type)
        return grads[0]


def _lower_nothing(entry: Any, kind: str) -> None:
    """Every node of the module, once: autocast off before it, and as it was behind it."""

    def off(_: Any) -> None:
        before.append(torch.is_autocast_enabled(kind))
        torch.set_autocast_enabled(kind, False)

    def back(_: Any, __: Any) -> None:
        torch.set_autocast_enabled(kind, before.pop())

    before: list[bool] = []
    waiting = [node for node, _ in entry.next_functions if type(node).__name__ not in LEAVES]
    while waiting:
        node = waiting.pop()
        if "as_given" in node.metadata or getattr(node, "_forward_cls", None) is _Entered:
            continue
        node.metadata["as_given"] = True
        node.register_prehook(off)
        node.register_hook(back)
        waiting += [n for n, _ in node.next_functions if type(n).__name__ not in LEAVES]


def _entered(x: Any) -> Any:
    return _Entered.apply(x) if _hooked(x) else x  # type: ignore[no-untyped-call]


def _returned(result: Any) -> Any:
    """The same outputs and states, behind nodes that see whether a pass back is under autocast."""
    if isinstance(result, tuple):
        return tuple(map(_returned, result))
    if isinstance(result, Tensor):
        return _Returned.apply(result) if _hooked(result) else result  # type: ignore[no-untyped-call]
    return result.map(_returned) if hasattr(result, "map") else result


def _hooked(x: Any) -> bool:
    """Whether a gradient comes by; what is compiled or transformed as a whole takes its own way back."""
    apart = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return isinstance(x, Tensor) and x.requires_grad and not apart


def under_autocast(device: torch.device) -> bool:
    """Whether torch chooses types of operations on this device."""
    if torch.compiler.is_compiling():
        return device.type in KINDS and torch.is_autocast_enabled(device.type)
    # First the one question that asks for every device: it is asked for every layer of every step.
    return _any_autocast() and device.type in KINDS and torch.is_autocast_enabled(device.type)


def as_given(device: torch.device) -> AbstractContextManager[object]:
    """For a pass back that is called under autocast: it lowers nothing that the pass forward did not."""
    return torch.autocast(device.type, enabled=False) if under_autocast(device) else nullcontext()


def in_half(function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """`function(*tensors)`, float32 ones in half precision under autocast; the type of the first."""
    kind, first = _chosen.kind, tensors[0]
    assert first is not None
    if kind is None or first.dtype != torch.float32:
        return function(*tensors)
    return function(*(None if t is None else t.to(kind) for t in tensors)).to(first.dtype)
