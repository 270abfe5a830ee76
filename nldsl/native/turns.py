"""A compiled function called again and again for every lane, on what it made before and what comes next.

All turns of a lane are behind one another, so that what they hand on stays in the cache of a core.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.native.graph import View, contiguous
from nldsl.native.lanes import Compiled
from nldsl.runtime.allocator import in_large_pages

LINE = 16
"""Numbers of a line of the cache, at most."""
FORTH, SECOND = 0, 1
"""Which of two places an array begins in that changes between them."""


class Moving(NamedTuple):
    """An array as the first turn has it, how many bytes further the next has it, and whether (-1: not) it
    comes back every second time, beginning `FORTH` or `SECOND`.
    """

    first: Tensor
    step: int
    change: int = -1


class Handed(NamedTuple):
    """What every turn hands to the next: `places [N + 1, ..]` or, where only the last counts, `[2, ..]`."""

    places: Tensor
    kept: bool

    @property
    def taken(self) -> Moving:
        """As an argument."""
        return Moving(self.places[0], _bytes(self.places), -1 if self.kept else FORTH)

    @property
    def given(self) -> Moving:
        """As a result."""
        if self.kept:
            return Moving(self.places[1], _bytes(self.places))
        return Moving(self.places[0], _bytes(self.places), SECOND)

    def behind(self, count: int) -> Tensor:
        """What the last of `count` turns gave, by itself."""
        return self.places[count if self.kept else count % 2].clone(memory_format=torch.contiguous_format)


def beside(shapes: Sequence[Sequence[int]], like: Tensor, count: int) -> list[Tensor]:
    """Room `[N, *lanes, *shape]` for every shape; what a lane has in one turn lies together.

    Arrays of their own would begin at the same places of the cache in every lane, and push one another out.
    """
    sizes = [-(-prod(shape) // LINE) * LINE for shape in shapes]
    whole, found, at = in_large_pages(like.new_empty(*like.shape[:2], count, sum(sizes))), [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        rows = whole[..., at : at + prod(shape)]
        found.append((rows.unflatten(-1, tuple(shape)) if shape else rows.squeeze(-1)).movedim(2, 0))
        at += size
    return found


def shapes_of(views: Sequence[View]) -> list[tuple[int, ...]]:
    """What one lane has of every result."""
    return [v.shape[2:] for v in views]


def packed(states: Sequence[Tensor]) -> bool:
    """Whether what a lane has of each lies as `handed` lays it: what turns hand on is of one layout."""
    return all(x.stride()[2:] == contiguous(x.shape[2:]) for x in states)


def handed(first: Tensor, places: Tensor, kept: bool) -> Handed:
    """What is handed on in these places, where the first turn finds `first`."""
    places[0].copy_(first)
    return Handed(places, kept)


def through(rows: Tensor, backward: bool = False) -> Moving:
    """Results `[N, ..]` turn by turn, the first of them last where they run `backward`."""
    return Moving(rows[-1], -_bytes(rows)) if backward else Moving(rows[0], _bytes(rows))


def moving(turns: Sequence[Sequence[Tensor | None]], count: int) -> list[Moving | None] | None:
    """The arguments of the first, second and last turn as arrays; `None` where they do not move evenly."""
    now, later, last = turns
    found: list[Moving | None] = []
    for x, y, z in zip(now, later, last, strict=True):
        if x is None or y is None or z is None:
            if not (x is y is z):
                return None
            found.append(None)
            continue
        step = y.data_ptr() - x.data_ptr()
        if z.data_ptr() - x.data_ptr() != step * (count - 1) or not x.stride() == y.stride() == z.stride():
            return None
        found.append(Moving(x, step))
    return found


def run(made: Compiled, arrays: Sequence[Moving], count: int) -> None:
    """`count` turns of every lane; `arrays`: arguments, then results, those that are there."""
    lanes = [max(a.first.shape[i] for a in arrays) for i in range(2)]
    sizes, turns = list(lanes), [count]
    for x, step, change in arrays:
        sizes += [x.stride(i) * x.element_size() if x.shape[i] > 1 else 0 for i in range(2)]
        turns += [step, change]
    places = (ctypes.c_void_p * len(arrays))(*(a.first.data_ptr() for a in arrays))
    numbers, moves = (ctypes.c_long * len(sizes))(*sizes), (ctypes.c_long * len(turns))(*turns)
    if made.step(len(arrays), numbers, places, moves, min(torch.get_num_threads(), prod(lanes))):
        raise MemoryError("no room for a lane")


def _bytes(rows: Tensor) -> int:
    return rows.stride(0) * rows.element_size()
