"""Functions of one chunk of a memory that runs in one pass (see `held`), and runs of chunks by them.

Shapes: `B` samples, `H` heads, `X = B H`; tensors of a chunk as `Groups` has them, with `[B, H]` for `[X]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.native.held_runs import FACTORS, Turned, flat_of, in_one, run_ahead, take
from nldsl.native.lanes import AFTER, Lanes, first_lane
from nldsl.native.remade import NOTHING, Remade, remade
from nldsl.native.turns import beside, moving, packed, run, runs_of, shapes_of, through
from nldsl.runtime.held_back import Flows, Found, chunk_back, reads_back
from nldsl.runtime.held_chunk import Passed, pass_chunk
from nldsl.runtime.held_parts import Groups, Kept, Kind, Shelf
from nldsl.runtime.held_walk import Ahead, Back


class Form(ABC):
    """A function of flat tensors, by torch till a width has come up often enough."""

    def __init__(self, kind: Kind, rows: int) -> None:
        self.kind = kind
        self.lanes = Lanes(self.function, 2, rows=rows)
        self.seen: Counter[object] = Counter()
        self.after: int | None = None

    @abstractmethod
    def function(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """What is traced."""

    def called(self, tensors: Sequence[Tensor | None]) -> Iterator[Any]:
        """The results one by one."""
        first = tensors[0]
        assert first is not None
        width = first.shape[2]
        if self.seen[width] < (AFTER if self.after is None else self.after):
            self.seen[width] += 1
            return iter(self.function(*tensors))
        return iter(self.lanes(*tensors))


class ForwardForm(Form):
    """`pass_chunk`: answers, weights and momenta behind it and, where it is `tracked`, what is kept."""

    def __init__(self, kind: Kind, tracked: bool) -> None:
        super().__init__(kind, kind.counts.queries)
        self.tracked = tracked
        self.places: Kept | None = None
        """Where everything kept is found among what is given, then what is kept of it."""
        self.remade: Remade | None = None
        """What of it is made again on the way back, once it is known."""

    def function(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """See `Form`."""
        made, kept = self._passed(tensors)
        n = self.kind.counts
        stays = [None] * (0 if made.running else n.weights + n.slots)
        moved = (*made.running, *made.slots, *stays)
        assert self.remade is not None
        sums = made.gathered[: self.sums]
        return _apart(_lead(tensors), (*made.answers, *moved, *sums, *self.remade.without(kept)))

    def _passed(self, tensors: Sequence[Tensor | None]) -> tuple[Passed, list[Tensor]]:
        """What a chunk gives, and all that its way back needs besides what is given."""
        given, shelf = _joined(self.kind, tensors), Shelf()
        made, known = pass_chunk(self.kind, given), [x for x in given.flat() if x is not None]
        shelf.put(known)
        if self.tracked:
            self.places = made.kept.mapped(shelf.put)
        return made, shelf.tensors[len(known) :]

    @property
    def sums(self) -> int:
        """How many sums of gradients are results; they stand at the end of what is kept if they are."""
        return 0 if self.places is not None and self.places.gathered else self.kind.counts.gathered

    def called(self, tensors: Sequence[Tensor | None]) -> Iterator[Any]:
        """See `Form`."""
        if self.remade is None:
            lane = [None if x is None else first_lane(x.detach(), 2) for x in tensors]
            self.remade = remade(lambda *x: self._passed(x)[1], lane) if self.tracked else NOTHING
        return super().called(tensors)

    def run(self, given: Groups) -> Passed:
        """What is kept is one list."""
        found, counts = self.called(flat_of(given)), self.kind.counts
        taken = (counts.queries, counts.weights, counts.slots, self.sums)
        answers, running, slots, sums = (take(found, n) for n in taken)
        kept = list(found)
        if running[0] is None:
            running, slots = [], []
        return Passed(answers, running, slots, in_one(kept), sums or kept[len(kept) - counts.gathered :])

    def many(self, walk: Ahead, start: int, stop: int) -> bool:
        """A run of chunks, if it is compiled."""
        if not self.lanes.compiled or not packed([*walk.running, *walk.committed, *walk.slots]):
            return False
        turns = [flat_of(walk.at(n)) for n in (start, start + 1, stop - 1)]
        made, arguments = self.lanes.form(turns[0]), moving(turns, stop - start)
        if made is None or arguments is None:
            return False
        run_ahead(walk, start, stop, made, arguments, self.sums)
        return True


class BackForm(Form):
    """`chunk_back`; whether gradients at the committed weights are `apart`, and gathered sums wait behind."""

    def __init__(self, forward: ForwardForm, apart: bool, waits: bool) -> None:
        super().__init__(forward.kind, forward.kind.counts.queries + forward.kind.counts.inputs)
        self.forward, self.apart, self.waits = forward, apart, waits

    def function(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """See `Form`."""
        given, kept, flows, answers = self.parts(tensors)
        found = chunk_back(self.kind, given, kept, flows, answers)
        ways, moved = (x for way in found.ways for x in way), (x for group in flows[:5] for x in group)
        made = (*found.queries, *found.inputs, *found.fade, *ways, *found.gathered, *moved)
        return _apart(_lead(tensors), made)

    def parts(self, tensors: Sequence[Tensor | None]) -> tuple[Groups, Kept, Flows, list[Tensor]]:
        """What `chunk_back` takes."""
        n = self.kind.counts
        width = n.queries + n.inputs + FACTORS + 3 * n.ways + 2 * n.weights + sum(n[4:])
        given = _joined(self.kind, tensors[:width])
        rest = (None if x is None else x.flatten(0, 1) for x in tensors[width:])
        answers = take(rest, n.queries)
        flows = Flows(*[take(rest, count) for count in self.flowing()])
        assert self.forward.remade is not None
        assert self.forward.places is not None
        known = [x for x in given.flat() if x is not None]
        shelf = [*known, *self.forward.remade.whole([x for x in rest if x is not None])]
        kept = self.forward.places.mapped(lambda places: [shelf[i] for i in places])
        return given, kept, flows, answers

    def flowing(self) -> list[int]:
        """How many gradients of each group of `Flows` are arguments."""
        n = self.kind.counts
        apart, waits = n.weights if self.apart else 0, n.gathered if self.waits else 0
        return [n.weights, apart, n.slots, n.anchors, n.shared, waits]

    def run(
        self, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> tuple[Found, Flows]:
        """See `Steps`."""
        found, n = self.called(self._tensors(given, kept, flows, answers)), self.kind.counts
        rows, fade = (take(found, n.queries), take(found, n.inputs)), take(found, FACTORS)
        made = Found(*rows, fade, [take(found, 3) for _ in range(n.ways)], take(found, n.gathered))
        moved = flows._replace(gathered=[])
        return made, Flows(*[take(found, len(group)) for group in moved])

    def _tensors(
        self, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        return [*flat_of(given), *answers, *(x for group in flows for x in group), *kept.kept]

    def many(self, back: Back, start: int, stop: int) -> bool:
        """A run of chunks, if it is compiled."""
        count, flows = stop - start, back.flows._replace(committed=[], gathered=[])
        held = [x for group in flows for x in group]
        if not self.lanes.compiled or not packed(held):
            return False
        turns = []
        for n in (stop - 1, stop - 2, start):
            given, answers = back.at(n)
            turns.append(self._tensors(given, back.chunks[n].kept, flows, answers))
        made, arguments = self.lanes.form(turns[0]), moving(turns, count)
        if made is None or arguments is None:
            return False
        back.commit(stop - 1)
        like = flows.running[0]
        states = [Turned.of(x) for x in held]
        first = len(arguments) - len(back.chunks[start].kept.kept) - len(states)
        arguments[first : first + len(states)] = [state.taken for state in states]
        views = made.outputs[: len(made.outputs) - len(states)]
        sequences = self._sequences(back, start, stop)
        apart = views[len(sequences) :]
        room = iter(beside(shapes_of([v for v in apart if v is not None]), like, count))
        rows = [None if v is None else x for v, x in zip(views, sequences, strict=False)]
        rows += [None if v is None else next(room) for v in apart]
        results = [*(through(x, backward=True) for x in rows if x is not None), *(s.given for s in states)]
        run(made, [x for x in (*arguments, *results) if x is not None], count)
        moved = (state.place(count) for state in states)
        back.flows = Flows(*[take(moved, len(group)) for group in flows])
        self._spread(back, start, stop, iter(rows))
        return True

    def _sequences(self, back: Back, start: int, stop: int) -> list[Tensor]:
        """Where the gradients at queries and inputs of a run of chunks are made, `[N, B, H, C, d]` each."""
        at, told = zip(*back.places[start:stop], strict=True)
        queries = [runs_of(into, back.part, at) for into in back.made.queries]
        return [*queries, *(runs_of(into, back.part, told) for into in back.made.inputs)]

    def _spread(self, back: Back, start: int, stop: int, rows: Iterator[Tensor | None]) -> None:
        """Gradients of a run of chunks `[N, ..]` to where those of all chunks are; rows are there already."""
        at = [place for place, _ in back.places[start:stop]]
        for there, found in zip(self._sequences(back, start, stop), rows, strict=False):
            if found is None:
                there.zero_()
        for total, found in zip(back.totals, take(rows, FACTORS), strict=True):
            total += [None] * (stop - start) if found is None else found.flip(0).unbind()
        for way in back.tolls:
            for into, found in zip(way, take(rows, 3), strict=True):
                if into is None or found is None:
                    continue
                place = into[:, :, at[0].start : at[-1].stop]
                place = place[..., : found.shape[-1]] if into is way.kernel else place
                place.unflatten(2, (stop - start, -1)).copy_(found.movedim(0, 2))


class ReadsForm(BackForm):
    """`reads_back`: gradients at queries and committed weights."""

    def __init__(self, forward: ForwardForm) -> None:
        super().__init__(forward, apart=True, waits=False)
        self.lanes = Lanes(self.function, 2, rows=forward.kind.counts.queries)

    def flowing(self) -> list[int]:
        """See `BackForm`: those at the committed weights begin here."""
        return [0, 0, 0, 0, self.kind.counts.shared, 0]

    def function(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """See `Form`."""
        given, kept, flows, answers = self.parts(tensors)
        flows = flows._replace(committed=[torch.zeros_like(w) for w in given.committed])
        queries = reads_back(self.kind, given, kept, flows, answers)
        return _apart(_lead(tensors), (*queries, *flows.committed, *flows.shared))

    def only(
        self, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> tuple[list[Tensor | None], Flows]:
        """See `Steps.reads`."""
        only = Flows([], [], [], [], flows.shared, [])
        found, n = self.called(self._tensors(given, kept, only, answers)), self.kind.counts
        queries, committed, shared = (take(found, count) for count in (n.queries, n.weights, n.shared))
        return queries, flows._replace(committed=committed, shared=shared)


def _lead(tensors: Sequence[Tensor | None]) -> tuple[int, ...]:
    assert tensors[0] is not None
    return tuple(tensors[0].shape[:2])


def _joined(kind: Kind, tensors: Sequence[Tensor | None]) -> Groups:
    """What a chunk is given as torch has it: lanes joined, slow parameters without."""
    count = len(tensors) - kind.counts.shared
    lanes = (None if x is None else x.flatten(0, 1) for x in tensors[:count])
    return kind.groups([*lanes, *(x[0, 0] for x in tensors[count:] if x is not None)])


def _apart(lead: tuple[int, ...], found: Iterable[Tensor | None]) -> list[Tensor | None]:
    return [None if x is None else x.unflatten(0, lead) for x in found]
