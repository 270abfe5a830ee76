"""Memories that run in one pass (see `held_pass`) with every chunk in C, one head of one sample at a time.

A chunk keeps for its way back what torch keeps, but rows are looked up where they were given.  Chunks of one
width with a commit between any two are one call.

Shapes: `B` samples, `H` heads, `X = B H`; tensors of a chunk as `Groups` has them, with `[B, H]` for `[X]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from inspect import unwrap
from typing import Any

from torch import Tensor

from nldsl.native.forwards import put, shared
from nldsl.native.held_runs import FACTORS, Turned, flat_of, in_one, run_ahead, take
from nldsl.native.lanes import AFTER, Lanes, first_lane
from nldsl.native.remade import NOTHING, Remade, remade
from nldsl.native.turns import beside, moving, packed, run, runs_of, shapes_of, through
from nldsl.runtime.held_back import Flows, Found, chunk_back, reads_back
from nldsl.runtime.held_chunk import Passed, pass_chunk
from nldsl.runtime.held_parts import Groups, Job, Kept, Kind, Shelf
from nldsl.runtime.held_pass import Held, held_pass
from nldsl.runtime.held_walk import Ahead, Back, Steps
from nldsl.runtime.module import Module

PASS = "held_pass"
"""The name under which the files of emitted modules have what they call."""
ROOM = 2**22
"""Bytes of weights whose chunks are one call: fewer would be the calls of Python, not the numbers."""


def passes_of(block: type[Module]) -> bool:
    """Whether memories of a class of blocks run in one pass."""
    return PASS in unwrap(block.forward).__code__.co_names


def quicken(block: Module, after: int | None = None) -> NativePass:
    """Let the memories of a block run in lanes, with what its class has compiled; `after` for `AFTER`."""
    found = shared(type(block), PASS, NativePass)
    found.steps.after = after
    put(block, PASS, found)
    return found


class NativePass:
    """`held_pass` with its chunks in lanes, in the place of torch's."""

    def __init__(self) -> None:
        self.steps = NativeSteps()

    def __call__(self, *given: Any, **options: Any) -> Held:
        """See `held_pass`."""
        found: Held = held_pass(*given, **options, steps=self.steps)
        return found

    @property
    def reasons(self) -> dict[str, None]:
        """Why torch computes what it still does, each once."""
        lanes = (form.lanes for form in self.steps.forms.values())
        return dict.fromkeys(reason for one in lanes for reason in one.reasons.values())

    @property
    def count(self) -> int:
        """How many functions have been compiled so far."""
        return sum(form.lanes.compiled for form in self.steps.forms.values())


class NativeSteps(Steps):
    """The steps of a chunk; `forms`: the functions of every kind of memory that has been seen."""

    joined = False

    def __init__(self) -> None:
        self.forms: dict[object, _Form] = {}
        self.after: int | None = None

    def room(self) -> int:
        """See `Steps`."""
        return ROOM

    def ahead(self, walk: Ahead) -> None:
        """See `Steps`."""
        n = 0
        while n < len(walk.job.widths):
            # Weights committed in front of a run are given apart; sums that wait make another function.
            waits = any(g is not None for g in walk.gathered)
            stop = n + 1 if waits else _alike(walk.job, n, within=False)
            if stop - n > 1 and self._forward(walk.job.kind, walk.at(n), walk.job.tracked).many(
                walk, n, stop
            ):
                n = stop
            else:
                walk.one(n)
                n += 1

    def behind(self, back: Back) -> None:
        """See `Steps`."""
        ends, n = list(_runs(back.job)), back.last()
        while n:
            start = next(first for first, stop in ends if first < n <= stop)
            runs = (f for f in (start, start + 1) if n - f > 1)  # weights of the first may lie apart
            first = next((f for f in runs if self._back(back.job.kind, back.at(f)[0]).many(back, f, n)), None)
            if first is None:
                back.one(first := n - 1)
            n = first

    def forward(self, kind: Kind, given: Groups, tracked: bool) -> Passed:
        """See `Steps`."""
        return self._forward(kind, given, tracked).run(given)

    def back(
        self, kind: Kind, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> tuple[Found, Flows]:
        """See `Steps`."""
        form = self._back(kind, given, bool(flows.committed), bool(flows.gathered))
        return form.run(given, kept, flows, answers)

    def reads(
        self, kind: Kind, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> tuple[list[Tensor | None], Flows]:
        """See `Steps`."""
        key = "reads", kind, _absent(given)
        form = self.forms.get(key)
        if not isinstance(form, _Reads):
            form = self.forms[key] = _Reads(self._forward(kind, given, True))
        form.after = self.after
        return form.only(given, kept, flows, answers)

    def _back(self, kind: Kind, given: Groups, apart: bool = False, waits: bool = False) -> _Back:
        key = "back", kind, _absent(given), apart, waits
        form = self.forms.get(key)
        if not isinstance(form, _Back):
            form = self.forms[key] = _Back(self._forward(kind, given, True), apart, waits)
        form.after = self.after
        return form

    def _forward(self, kind: Kind, given: Groups, tracked: bool) -> _Forward:
        key = "forward", kind, _absent(given), tracked
        form = self.forms.get(key)
        if not isinstance(form, _Forward):
            form = self.forms[key] = _Forward(kind, tracked)
        form.after = self.after
        return form


def _alike(job: Job, n: int, within: bool = True) -> int:
    """Where the run of chunks from `n` on ends: of one width, with a commit behind each and, where all lie
    `within` commits, in front of the first.
    """
    stop = n
    while stop < len(job.widths) and job.widths[stop] == job.widths[n] and job.ends[stop] is True:
        if within and (not stop or job.ends[stop - 1] is not True):
            break
        stop += 1
    return max(stop, n + 1)


def _runs(job: Job) -> Iterator[tuple[int, int]]:
    n = 0
    while n < len(job.widths):
        stop = _alike(job, n)
        yield n, stop
        n = stop


class _Form(ABC):
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


class _Forward(_Form):
    """`pass_chunk`: answers, weights and momenta behind it and, where it is `tracked`, what is kept."""

    def __init__(self, kind: Kind, tracked: bool) -> None:
        super().__init__(kind, kind.counts.queries)
        self.tracked = tracked
        self.places: Kept | None = None
        """Where everything kept is found among what is given, then what is kept of it."""
        self.remade: Remade | None = None
        """What of it is made again on the way back, once it is known."""

    def function(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """See `_Form`."""
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
        """See `_Form`."""
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


class _Back(_Form):
    """`chunk_back`; whether gradients at the committed weights are `apart`, and gathered sums wait behind."""

    def __init__(self, forward: _Forward, apart: bool, waits: bool) -> None:
        super().__init__(forward.kind, forward.kind.counts.queries + forward.kind.counts.inputs)
        self.forward, self.apart, self.waits = forward, apart, waits

    def function(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """See `_Form`."""
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
        counts = [n.weights, n.weights if self.apart else 0, n.slots, n.anchors, n.shared]
        counts.append(n.gathered if self.waits else 0)
        flows = Flows(*[take(rest, count) for count in counts])
        assert self.forward.remade is not None
        assert self.forward.places is not None
        known = [x for x in given.flat() if x is not None]
        shelf = [*known, *self.forward.remade.whole([x for x in rest if x is not None])]
        kept = self.forward.places.mapped(lambda places: [shelf[i] for i in places])
        return given, kept, flows, answers

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


class _Reads(_Back):
    """`reads_back`: gradients at queries and committed weights."""

    def __init__(self, forward: _Forward) -> None:
        super().__init__(forward, apart=True, waits=False)
        self.lanes = Lanes(self.function, 2, rows=forward.kind.counts.queries)

    def function(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """See `_Form`."""
        given, kept, flows, answers = self.parts(tensors)
        queries = reads_back(self.kind, given, kept, flows, answers)
        return _apart(_lead(tensors), (*queries, *flows.committed, *flows.shared))

    def only(
        self, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> tuple[list[Tensor | None], Flows]:
        """See `Steps.reads`."""
        found, n = self.called(self._tensors(given, kept, flows, answers)), self.kind.counts
        queries, committed, shared = (take(found, count) for count in (n.queries, n.weights, n.shared))
        return queries, flows._replace(committed=committed, shared=shared)


def _absent(given: Groups) -> tuple[bool, ...]:
    """What is not there: a function of the rest keeps other things."""
    return tuple(x is None for x in given.flat())


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
