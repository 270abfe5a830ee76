"""Steps that are computed again in the backward pass, but for the results that are dear and small.

A step of a chunk saves its arguments, and what its kernels pass through `kept` (the inverse of a
triangular system); everything else is computed again when the gradient arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Tape:
    """Results in the order in which they were made; `replay` gives them out again."""

    def __init__(self, results: Sequence[Tensor] | None = None) -> None:
        self.replay = results is not None
        self.results = list(results or ())
        self.position = 0

    def pass_on(self, make: Callable[[], Tensor]) -> Tensor:
        """The next result: made and noted, or the one noted the first time."""
        if not self.replay:
            self.results.append(make())
            return self.results[-1]
        self.position += 1
        return self.results[self.position - 1]


_TAPE: ContextVar[_Tape | None] = ContextVar("tape", default=None)


@contextmanager
def _using(tape: _Tape) -> Iterator[None]:
    token = _TAPE.set(tape)
    try:
        yield
    finally:
        _TAPE.reset(token)


def kept(make: Callable[[], Tensor]) -> Tensor:
    """What `make` gives; inside a recomputed step it is made only the first time.

    >>> kept(lambda: torch.ones(1)).item()
    1.0
    """
    tape = _TAPE.get()
    return make() if tape is None else tape.pass_on(make)


def results_wanted() -> bool:
    """Whether anyone looks at the results of a step: not when it runs again for its gradient."""
    tape = _TAPE.get()
    return tape is None or not tape.replay


def recomputed(step: Callable[..., Any], *arguments: Tensor | None) -> Any:
    """`step(*arguments)` for a method of a module, computed again in the backward pass.

    Gradients reach the arguments and the parameters of the module.

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
        tape = _Tape()
        with _using(tape):
            results = step(*tensors[:count])
        ctx.step, ctx.count, ctx.arguments = step, count, len(tensors)
        ctx.save_for_backward(*tensors, *tape.results)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        tensors, kept_results = saved[: ctx.arguments], saved[ctx.arguments :]
        wanted = ctx.needs_input_grad[2:]
        arguments = [
            x if x is None else x.detach().requires_grad_(w)
            for x, w in zip(tensors[: ctx.count], wanted[: ctx.count], strict=True)
        ]
        with torch.enable_grad(), _using(_Tape(kept_results)):
            results = ctx.step(*arguments)
        results = results if isinstance(results, tuple) else (results,)
        flowing = [(r, g) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad]
        sources = [*arguments, *tensors[ctx.count :]]
        asked = [x for x, w in zip(sources, wanted, strict=True) if w]
        outputs, seeds = [r for r, _ in flowing], [g for _, g in flowing]
        found = iter(torch.autograd.grad(outputs, asked, seeds, allow_unused=True) if outputs else ())
        return None, None, *(next(found, None) if w else None for w in wanted)
