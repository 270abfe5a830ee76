"""What a chunk step is asked before it runs in lanes: what it reads, and whether lanes give the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.native.graph import UnsupportedError
from nldsl.native.places import Named, Watched

Tensors = Sequence[Tensor | None]


class Flowed(NamedTuple):
    """All that a step and its backward pass return."""

    results: list[Tensor]
    kept: list[Tensor | None]
    flows: list[Tensor | None]
    many: bool


class Probe:
    """Arguments like those of a call, none of them special: a memory at its start hides what reads it."""

    def __init__(
        self,
        step: Callable[..., Any],
        back: Callable[..., Any],
        module: Any,
        arguments: Tensors,
        parameters: Sequence[Tensor],
    ) -> None:
        self.step, self.back = step, back
        generator = torch.Generator().manual_seed(0)
        self.arguments = [None if x is None else _moved(x, generator) for x in arguments]
        read: dict[str, Tensor] = {}
        watched = run(step, back, Watched(module, read), self.arguments)
        self.found = len(watched.results), len(watched.kept), watched.many
        places = {id(x): i for i, x in enumerate(read.values())}
        if any(id(p) not in places for p in parameters):
            raise UnsupportedError("its gradients are of parameters that it does not read")
        self.asked = [places[id(p)] for p in parameters]
        self.paths = list(read)
        self.key = (self.found, tuple(self.asked), tuple(self.paths))
        self.values = [_moved(x.detach(), generator) for x in read.values()]
        self.grads = [
            torch.randn(y.shape, generator=generator, dtype=torch.float64, device="cpu").to(y.dtype)
            for y in watched.results
        ]

    def wanted(self) -> tuple[Flowed, Flowed]:
        """What torch gives, and in double precision."""
        return self._run(lambda x: x), self._run(lambda x: x.double() if x.is_floating_point() else x)

    def _run(self, cast: Callable[[Tensor], Tensor]) -> Flowed:
        arguments = [None if x is None else cast(x) for x in self.arguments]
        module = Named(dict(zip(self.paths, map(cast, self.values), strict=True)))
        return run(self.step, self.back, module, arguments, [cast(g) for g in self.grads])


def run(
    step: Callable[..., Any],
    back: Callable[..., Any],
    module: Any,
    arguments: Tensors,
    grads: Sequence[Tensor] | None = None,
) -> Flowed:
    """A step and its backward pass as they were emitted."""
    kept: list[Tensor | None] = []
    found = step(module, *arguments, kept)
    results = list(found) if isinstance(found, tuple) else [found]
    flows = back(module, *arguments, kept, *(map(torch.ones_like, results) if grads is None else grads))
    return Flowed(results, kept, list(flows), isinstance(found, tuple))


def differs(got: Tensors, want: Tensors, exact: Tensors) -> bool:
    """Whether `got` is farther from what double precision gives than rounding explains.

    >>> one = torch.ones(3)
    >>> differs([one], [one], [one.double()]), differs([1.01 * one], [one], [one.double()])
    (False, True)
    """
    for g, w, e in zip(got, want, exact, strict=True):
        if g is None or w is None or e is None:
            if g is not w:
                return True
            continue
        if g.shape != w.shape:
            return True
        rounding = 1e-9 if w.dtype == torch.float64 else 4e-6
        bound = rounding * _largest(e) + 16 * _largest(w.double() - e)
        if not _largest(g.double() - e) <= bound:
            return True
    return False


def _largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of the same sign and size; those of a tensor of zeros are drawn."""
    if not x.is_floating_point():
        return x
    # As it lies in memory: what an expanded axis repeats is drawn once.
    whole = x[tuple(slice(0, 1) if step == 0 else slice(None) for step in x.stride())]
    made = torch.empty_strided(whole.shape, whole.stride(), dtype=x.dtype, device=x.device)
    drawn = torch.rand(whole.shape, generator=generator, dtype=torch.float64, device="cpu").to(x.dtype)
    made.copy_(whole * (0.9 + 0.2 * drawn) if bool(whole.any()) else drawn - 0.5)
    return made.expand(x.shape)
