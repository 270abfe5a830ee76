"""A compiled function called again and again for every lane, on what it made before and what comes next.

All turns of a lane are behind one another, so that what they hand on stays in the cache of a core.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from torch import Tensor

from nldsl.native.graph import View, contiguous
from nldsl.native.lanes import Compiled
from nldsl.native.store import STORE
from nldsl.runtime.c_calls import threads

LINE = 16
"""Numbers of a line of the cache, at most."""
FORTH, SECOND = 0, 1
"""Which of two places an array begins in that changes between them."""


class Moving(NamedTuple):
    """An array as the first turn has it, how many bytes further the next has it, and whether (-1: not) it
    comes back every second time, beginning `FORTH` or `SECOND`; all turns begin `skip` bytes further.
    """

    first: Tensor
    step: int
    change: int = -1
    skip: int = 0

    def later(self, turns: int) -> Moving:
        """As some turns later."""
        return self._replace(skip=self.skip + turns * self.step)


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

    def place(self, count: int) -> Tensor:
        """Where the last of `count` turns put what it gave."""
        return self.places[count if self.kept else count % 2]


def beside(shapes: Sequence[Sequence[int]], like: Tensor, count: int) -> list[Tensor]:
    """Room `[N, *lanes, *shape]` for every shape; what a lane has in one turn lies together.

    Arrays of their own would begin at the same places of the cache in every lane, and push one another out.
    """
    # What is alone has no gaps, so that all chunks of it are a sequence as they lie.
    line = LINE if len(shapes) > 1 else 1
    sizes = [-(-prod(shape) // line) * line for shape in shapes]
    (first, second), width = like.shape[:2], sum(sizes)
    whole, found, at = STORE.empty((first * second * count * width,), like.dtype), [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        steps = width, second * count * width, count * width, *contiguous(tuple(shape))
        found.append(whole.as_strided((count, first, second, *shape), steps, at))
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


def again(rows: Tensor) -> Moving:
    """Results `[1, ..]` that nobody asks for: every turn writes over those of the last."""
    return Moving(rows[0], 0)


def runs_of(into: Tensor, part: slice, places: Sequence[slice]) -> Tensor:
    """The rows `[N, B, H, C, d]` of N chunks, one behind the other, of some samples of `[B, L, H, d]`.

    >>> import torch
    >>> runs_of(torch.zeros(5, 8, 3, 7), slice(1, 3), [slice(2, 4), slice(4, 6)]).shape
    torch.Size([2, 2, 3, 2, 7])
    """
    chunks: Tensor = into[part, places[0].start : places[-1].stop].unflatten(1, (len(places), -1))
    return chunks.permute(1, 0, 3, 2, 4)


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


class Call:
    """`count` turns of every lane on arrays that lie as these do, wherever they begin.

    `arrays`: arguments, then results, those that are there.
    """

    def __init__(self, made: Compiled, arrays: Sequence[Moving], count: int) -> None:
        lanes = [max(a.first.shape[i] for a in arrays) for i in range(2)]
        sizes, turns = list(lanes), [count]
        for x, step, change, _ in arrays:
            size, (one, other), (high, wide) = x.element_size(), x.stride()[:2], x.shape[:2]
            sizes += [one * size if high > 1 else 0, other * size if wide > 1 else 0]
            turns += [step, change]
        self.made = made
        self.sizes, self.turns = array("l", sizes), array("l", turns)

    def __call__(self, places: Sequence[int]) -> None:
        """`places`: where every array begins; the caller keeps them until it is back."""
        given = array("Q", places)
        first, second, third = (x.buffer_info()[0] for x in (self.sizes, given, self.turns))
        if self.made.step(len(places), first, second, third, threads()):
            raise MemoryError("no room for a lane")


def run(made: Compiled, arrays: Sequence[Moving], count: int) -> Call:
    """`count` turns of every lane; `arrays`: arguments, then results, those that are there."""
    call = Call(made, arrays, count)
    call([a.first.data_ptr() + a.skip for a in arrays])
    return call


def _bytes(rows: Tensor) -> int:
    return rows.stride(0) * rows.element_size()
