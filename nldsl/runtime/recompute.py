"""Steps that are computed again in the backward pass: a chunk saves its arguments only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order

_AGAIN: ContextVar[bool] = ContextVar("again", default=False)


def results_wanted() -> bool:
    """Whether anyone looks at the results of a step: not when it runs again for its gradient.

    >>> results_wanted()
    True
    """
    return not _AGAIN.get()


@contextmanager
def _again() -> Iterator[None]:
    token = _AGAIN.set(True)
    try:
        yield
    finally:
        _AGAIN.reset(token)


def recomputed(step: Callable[..., Any], *arguments: Tensor | None) -> Any:
    """`step(*arguments)` for a method of a module, computed again in the backward pass.

    Gradients reach the arguments and the parameters of the module.  The first pass keeps no history,
    and the second leaves out what only its results need.

    >>> layer = torch.nn.Linear(2, 1)
    >>> y = recomputed(layer.forward, torch.ones(1, 2))
    >>> torch.autograd.grad(y.sum(), layer.weight)[0]
    tensor([[1., 1.]])
    """
    module: torch.nn.Module = step.__self__  # type: ignore[attr-defined]
    parameters = [p for p in module.parameters() if p.requires_grad]
    return _Recomputed.apply(step, len(arguments), *arguments, *parameters)  # type: ignore[no-untyped-call]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, step: Callable[..., Any], count: int, *tensors: Tensor | None) -> Any:
        ctx.step, ctx.count = step, count
        ctx.save_for_backward(*tensors)
        return step(*tensors[:count])

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        arguments = [
            x if x is None else x.detach().requires_grad_(w)
            for x, w in zip(tensors[: ctx.count], wanted[: ctx.count], strict=True)
        ]
        with torch.enable_grad(), _again():
            results = ctx.step(*arguments)
        results = results if isinstance(results, tuple) else (results,)
        flowing = [(r, g) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad]
        sources = [*arguments, *tensors[ctx.count :]]
        asked = [x for x, w in zip(sources, wanted, strict=True) if w]
        outputs, seeds = [r for r, _ in flowing], [g for _, g in flowing]
        found = iter(torch.autograd.grad(outputs, asked, seeds, allow_unused=True) if outputs else ())
        return None, None, *(next(found, None) if w else None for w in wanted)
