"""Stages over the same first axis run inside one loop over it, so that what they hand on is smaller.

Memories side by side are such an axis.  Instead of one stage after the other over all of them, all stages run
for one of them: a buffer that is only used there has one part, which stays in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

from nldsl.native.graph import RUNNING, Buffer, Operation, Reduce, Routine, View
from nldsl.native.schedule import Loop, Stage, operations_of

FEWEST = 2
"""Stages that are worth a loop around them."""


@dataclass(eq=False)
class Nest:
    """`stages` for every of `count` places `y`; their views have lost that axis and move `along` it."""

    count: int
    stages: list[Stage]
    own: set[Buffer]
    """Buffers that hold one part at a time."""


def lead_of(stage: Stage) -> int:
    """How many places the first axis of a stage has that could go around it; 1: none."""
    if isinstance(stage, Loop):
        summed = (m for m in stage.members if isinstance(m, Reduce))
        if len(stage.domain) < 3 or any(_first(m.given.shape) in m.axes for m in summed):
            return 1
        return stage.domain[0]
    inner = 1 if isinstance(stage, Routine) and stage.name in RUNNING else 2
    batch = [n for n in stage.out.shape[:-inner] if n != 1]
    return batch[0] if batch else 1


def _first(shape: tuple[int, ...]) -> int:
    """The first axis that is not of size 1."""
    return next((i for i, n in enumerate(shape) if n != 1), 0)


def nested(stages: list[Stage]) -> list[Stage | Nest]:
    """The same stages, runs of them as nests."""
    runs: list[_Run] = []
    for stage in stages:
        lead = lead_of(stage)
        if lead == 1 or not runs or runs[-1].lead != lead or not runs[-1].takes(stage):
            runs.append(_Run(lead))
        runs[-1].add(stage)
    chosen = [run for run in runs if run.lead > 1 and len(run.stages) >= FEWEST]
    own = _only_inside(runs)
    found: list[Stage | Nest] = []
    for n, run in enumerate(runs):
        if run in chosen:
            found.append(Nest(run.lead, [_narrowed(s, own[n]) for s in run.stages], own[n]))
        else:
            found.extend(run.stages)
    for n, run in enumerate(runs):
        if run in chosen:
            for buffer in own[n]:
                buffer.size //= run.lead
    return found


class _Run:
    """Stages that may share a loop over their first axis."""

    def __init__(self, lead: int) -> None:
        self.lead = lead
        self.stages: list[Stage] = []
        self.steps: dict[Buffer, set[int]] = {}
        self.written: set[Buffer] = set()

    def add(self, stage: Stage) -> None:
        """One more."""
        self.stages.append(stage)
        for view, step, writes in _touched(stage):
            self.steps.setdefault(view.buffer, set()).add(step)
            if writes:
                self.written.add(view.buffer)

    def takes(self, stage: Stage) -> bool:
        """Whether whatever is written in the run is read where it was written: place by place."""
        touched = list(_touched(stage))
        written = self.written | {v.buffer for v, _, writes in touched if writes}
        for view, step, _ in touched:
            if view.buffer in written:
                steps = self.steps.get(view.buffer, set()) | {step}
                if len(steps) != 1 or 0 in steps:
                    return False
        return True


def _touched(stage: Stage) -> Iterator[tuple[View, int, bool]]:
    """Views, their steps along the first axis (0: it leaves its part), and which are written."""
    for o in operations_of([stage]):
        axis = _first(_shape(o))
        for view in (o.out, *o.reads()):
            # A number has no axis.
            step = view.strides[axis] if view.strides else 0
            yield view, step if _stays(view, axis, step) else 0, view is o.out


def _shape(operation: Operation) -> tuple[int, ...]:
    return operation.given.shape if isinstance(operation, Reduce) else operation.out.shape


def _stays(view: View, axis: int, step: int) -> bool:
    """Whether a view without an axis stays within one step of it."""
    reach = [(n - 1) * s for i, (n, s) in enumerate(zip(view.shape, view.strides, strict=True)) if i != axis]
    low = view.offset + sum(r for r in reach if r < 0)
    high = view.offset + sum(r for r in reach if r > 0)
    return 0 <= low and high < step


def _only_inside(runs: list[_Run]) -> dict[int, set[Buffer]]:
    """Buffers of the room that one run alone uses, part by part."""
    users: dict[Buffer, set[int]] = {}
    for n, run in enumerate(runs):
        for buffer in run.steps:
            users.setdefault(buffer, set()).add(n)
    found: dict[int, set[Buffer]] = {}
    for n, run in enumerate(runs):
        if run.lead > 1 and len(run.stages) >= FEWEST:
            found[n] = {
                b
                for b, steps in run.steps.items()
                if b.place == "room" and users[b] == {n} and steps == {b.size // run.lead}
            }
    return found


def _narrowed(stage: Stage, own: set[Buffer]) -> Stage:
    """A stage at one place of its first axis."""
    if isinstance(stage, Loop):
        return Loop(stage.domain[1:], [_at_place(m, own) for m in stage.members])
    return _at_place(stage, own)


def _at_place(operation: Operation, own: set[Buffer]) -> Operation:
    axis, new = _first(_shape(operation)), copy(operation)

    def narrow(view: View) -> View:
        shape, strides = list(view.shape), list(view.strides)
        step, shape[axis], strides[axis] = strides[axis], 1, 0
        moving = 0 if view.buffer in own else step
        return view._replace(shape=tuple(shape), strides=tuple(strides), along=moving)

    new.look(narrow)
    return new
