"""A function of lanes and the one on its way back, the first keeping what the second would make again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.native.graph import View
from nldsl.native.lanes import TYPES, Compiled, called, compiled_program, program_of
from nldsl.native.sharing import keeping, shared, spared
from nldsl.native.trace import Function


class Pair(NamedTuple):
    """Two compiled functions; what the first keeps the second takes behind its arguments."""

    ahead: Compiled
    behind: Compiled
    axes: int
    results: int
    layout: tuple[tuple[int, ...] | None, ...]
    """Strides behind the lanes of all that the second takes but what is kept."""

    def forward(self, arguments: Sequence[Tensor | None]) -> tuple[list[Tensor | None], list[Tensor]]:
        """Results of the first function, and what it keeps for the second."""
        found = called(self.ahead, arguments, self.axes)
        return found[: self.results], [x for x in found[self.results :] if x is not None]

    def backward(self, arguments: Sequence[Tensor | None], kept: Sequence[Tensor]) -> list[Tensor | None]:
        """Results of the second function."""
        given = [
            None if x is None or strides is None else laid(x, self.axes, strides)
            for x, strides in zip(arguments, self.layout, strict=True)
        ]
        kept = [x.contiguous() for x in kept]
        return called(self.behind, [*given, *kept], self.axes)


def paired(
    ahead: Function, behind: Function, arguments: Sequence[Tensor | None], axes: int, results: int
) -> Pair:
    """`ahead(*arguments)`, and `behind(*arguments, *rest, *gradients)`.

    The gradients are those of its first `results` results, `rest` the others.  Raises `UnsupportedError`.
    """
    first, empty = program_of(ahead, arguments, axes)
    outputs = _spread(first.outputs, empty)
    samples = [None if v is None else _like(v, arguments) for v in outputs]
    rest = [*samples[results:], *samples[:results]]
    second, none = program_of(behind, [*arguments, *rest], axes)
    same = sum(x is not None for x in arguments)
    kept, place = [], same
    for n, view in enumerate(outputs[results:], results):
        if view is not None:
            kept.append((n - sum(empty[:n]), place))
            place += 1
    more = shared(first, second, same, kept)
    with ThreadPoolExecutor(2) as pool:
        # The C compiler makes both at the same time.
        ready = [
            pool.submit(compiled_program, keeping(first, [x.ahead for x in more], axes), empty, axes),
            pool.submit(compiled_program, spared(second, [x.behind for x in more], axes), none, axes),
        ]
        made, back = (one.result() for one in ready)
    layout = tuple(None if x is None else x.stride()[axes:] for x in (*arguments, *rest))
    return Pair(made, back, axes, len(empty), layout)


def laid(x: Tensor, axes: int, strides: tuple[int, ...]) -> Tensor:
    """`x`, or a copy whose lanes lie as `strides` say: what hooks keep for a while may come back otherwise.

    >>> laid(torch.eye(2).expand(3, 2, 2), 1, (1, 2)).stride()
    (4, 1, 2)
    """
    if x.stride()[axes:] == strides:
        return x
    once = x[(..., *(slice(0, 1) if step == 0 else slice(None) for step in strides))]
    extent = 1 + sum((n - 1) * step for n, step in zip(once.shape[axes:], strides, strict=True))
    room = x.new_empty(*x.shape[:axes], extent)
    lie = (*room.stride()[:axes], *strides)
    room.as_strided(once.shape, lie).copy_(once)
    return room.as_strided(x.shape, lie)


def _spread(outputs: Sequence[View | None], empty: Sequence[bool]) -> list[View | None]:
    rest = iter(outputs)
    return [None if e else next(rest) for e in empty]


def _like(view: View, arguments: Sequence[Tensor | None]) -> Tensor:
    like = next(x for x in arguments if x is not None)
    # Nothing is drawn from the generator that others draw from.
    generator = torch.Generator(like.device).manual_seed(0)
    drawn = torch.rand(view.shape, generator=generator, dtype=torch.float64, device=like.device)
    return drawn.to(TYPES[view.buffer.kind])
