"""Runs of chunks of one pass (see `held`): what lies inside of a run is one call of C, and so is each end.

At its ends a run takes weights from where they were given and leaves them where they stay, without a copy.

Shapes: `N` chunks of a run, `B` samples, `H` heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.native.lanes import Compiled
from nldsl.native.turns import FORTH, SECOND, Moving, again, beside, run, runs_of, shapes_of, through
from nldsl.runtime.held_gates import Fading
from nldsl.runtime.held_parts import Chunk, Groups, Kept
from nldsl.runtime.held_walk import Ahead

FACTORS = len(Fading._fields)


class Turned(NamedTuple):
    """What every turn of a run hands to the next, from one place to the other and back, `one` first."""

    one: Tensor
    other: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Turned:
        """What the first turn finds, and room for what it gives."""
        x = x.contiguous()
        return cls(x, torch.empty_like(x))

    @property
    def taken(self) -> Moving:
        """As an argument."""
        return Moving(self.one, self.other.data_ptr() - self.one.data_ptr(), FORTH)

    @property
    def given(self) -> Moving:
        """As a result."""
        return self.taken._replace(change=SECOND)

    def place(self, count: int) -> Tensor:
        """Where the last of `count` turns put what it gave."""
        return (self.one, self.other)[count % 2]


class _Line(NamedTuple):
    """A weight or momentum of a run: what was given, room for what stands behind every chunk but the last
    (two places in turn, where nobody asks for it later), and for what stands behind the last.
    """

    first: Tensor
    room: Tensor
    last: Tensor
    kept: bool

    def taken(self, n: int) -> Moving:
        """From where chunks from `n` on take it."""
        return self._inside(n - 1) if n else Moving(self.first, 0)

    def given(self, n: int, count: int) -> Moving:
        """Where chunks from `n` on put it."""
        return self._inside(n) if n < count - 1 else Moving(self.last, 0)

    def _inside(self, n: int) -> Moving:
        """What stands behind chunk `n`."""
        step = self.room.stride(0) * self.room.element_size()
        return Moving(self.room[n], step) if self.kept else Moving(self.room[0], step, n % 2)

    def before(self, count: int) -> list[Tensor]:
        """In front of every chunk."""
        return [self.first, *self.room[: count - 1].unbind()]


def run_ahead(
    walk: Ahead, start: int, stop: int, made: Compiled, arguments: list[Moving | None], sums: int
) -> None:
    """Chunks from `start` to `stop` by a compiled function, at least two; it gives so many `sums`.

    `arguments`: those of the first, which move along.
    """
    n, like, count, tracked = walk.job.kind.counts, walk.running[0], stop - start, walk.job.tracked
    views = [v for v in made.outputs if v is not None]
    at = [place for place, _ in walk.places[start:stop]]
    widths = [view.shape[-1] for view in views[: n.queries]]
    answers = [runs_of(walk.answer(i, like, width), walk.part, at) for i, width in enumerate(widths)]
    behind = n.queries + n.weights + n.slots
    over = [again(x) for x in beside(shapes_of(views[behind : behind + sums]), like, 1)]
    weights = [*walk.running, *walk.slots]
    shapes = [*(w.shape[2:] for w in weights), *shapes_of(views[behind + sums :])]
    rooms = beside(shapes, like, count if tracked else 2)
    lines = [
        _Line(w, room, like.new_empty(w.shape), tracked) for w, room in zip(weights, rooms, strict=False)
    ]
    more = rooms[len(lines) :]
    later = [through(x) if tracked else again(x) for x in more]
    first = n.queries + n.inputs + FACTORS + 3 * n.ways
    results = [*map(through, answers), *over, *later]
    for begin, end in ((0, 1), (1, count - 1), (count - 1, count)):
        if begin == end:
            continue
        taken = [line.taken(begin) for line in lines]
        committed = [Moving(w, 0) for w in walk.committed] if begin == 0 else taken[: n.weights]
        given = [x.later(begin) if x is not None else None for x in arguments]
        given[first : first + 2 * n.weights + n.slots] = [
            *taken[: n.weights],
            *committed,
            *taken[n.weights :],
        ]
        found = [x.later(begin) for x in results]
        found[n.queries : n.queries] = [line.given(begin, count) for line in lines]
        run(made, [x for x in (*given, *found) if x is not None], end - begin)
    if tracked:
        walk.chunks += _chunks(walk, start, stop, lines, more)
    walk.running, walk.slots = ([x.last for x in group] for group in (lines[: n.weights], lines[n.weights :]))
    walk.committed = walk.running


def _chunks(
    walk: Ahead, start: int, stop: int, lines: Sequence[_Line], more: Sequence[Tensor]
) -> list[Chunk]:
    """What every chunk keeps: `more`, and what it was given."""
    at, told = zip(*walk.places[start:stop], strict=True)
    n, count, given = walk.job.kind.counts, stop - start, walk.given
    columns = [runs_of(x, walk.part, at).unbind() for x in given.queries]
    columns += [runs_of(x, walk.part, told).unbind() for x in given.inputs]
    weights = [line.before(count) for line in lines]
    found = []
    for turn in range(count):
        rows, here = [column[turn] for column in columns], [line[turn] for line in weights]
        running, slots = here[: n.weights], here[n.weights :]
        committed = running if turn else walk.committed
        kept = in_one([x[turn] for x in more])
        waits = [None] * n.gathered
        found.append(Chunk(rows[: n.queries], rows[n.queries :], running, committed, slots, waits, kept))
    return found


def flat_of(given: Groups) -> list[Tensor | None]:
    """What a chunk is given as lanes take it: slow parameters are alike in all."""
    return given._replace(shared=[x[None, None] for x in given.shared]).flat()


def in_one(kept: list[Any]) -> Kept:
    """What lanes keep is one list."""
    return Kept([], [], kept, [], [])


def take(found: Iterable[Any], count: int) -> list[Any]:
    """The next of them."""
    return list(islice(found, count))
