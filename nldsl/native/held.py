"""Memories that run in one pass (see `held_pass`) with every chunk in C, one head of one sample at a time.

A chunk keeps for its way back what torch keeps, but rows are looked up where they were given.  Chunks of one
width with a commit between any two are one call.

Shapes: `B` samples, `H` heads, `X = B H`; tensors of a chunk as `Groups` has them, with `[B, H]` for `[X]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import unwrap
from typing import Any

from torch import Tensor

from nldsl.native.forwards import put, shared
from nldsl.native.held_forms import BackForm, Form, ForwardForm, ReadsForm
from nldsl.runtime.held_back import Flows, Found
from nldsl.runtime.held_chunk import Passed
from nldsl.runtime.held_parts import Groups, Job, Kept, Kind
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
        self.forms: dict[object, Form] = {}
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
        if not isinstance(form, ReadsForm):
            form = self.forms[key] = ReadsForm(self._forward(kind, given, True))
        form.after = self.after
        return form.only(given, kept, flows, answers)

    def _back(self, kind: Kind, given: Groups, apart: bool = False, waits: bool = False) -> BackForm:
        key = "back", kind, _absent(given), apart, waits
        form = self.forms.get(key)
        if not isinstance(form, BackForm):
            form = self.forms[key] = BackForm(self._forward(kind, given, True), apart, waits)
        form.after = self.after
        return form

    def _forward(self, kind: Kind, given: Groups, tracked: bool) -> ForwardForm:
        key = "forward", kind, _absent(given), tracked
        form = self.forms.get(key)
        if not isinstance(form, ForwardForm):
            form = self.forms[key] = ForwardForm(kind, tracked)
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


def _absent(given: Groups) -> tuple[bool, ...]:
    """What is not there: a function of the rest keeps other things."""
    return tuple(x is None for x in given.flat())
