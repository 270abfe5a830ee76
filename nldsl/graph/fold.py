"""Blocks written out one after the other, kept as one copy: what `repeat` would have said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nldsl.graph.levels import frequency
from nldsl.graph.model import Frame, Level, LevelGraph, Problem, Transfer, Zone

CROWDED = 10
"""Blocks a picture shows side by side; more of them are folded where they are alike."""

_LONGEST = 16
"""Blocks in one copy."""


@dataclass(frozen=True)
class _Run:
    """`count` copies of the `period` zones from `start` on."""

    start: int
    period: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.period * self.count


def folded(graph: LevelGraph, most: int = CROWDED) -> LevelGraph:
    """The graph with runs of like blocks kept as one copy, if it has more than `most` blocks.

    A run is a sequence of blocks that comes again and again, equal up to the names of its paths: three
    recurrent blocks and one attention, twelve times.  Problems count all copies (`multiplicity`,
    `parameters`); transfers between copies wrap, as in a `repeat`.
    """
    if len(graph.zones) <= most:
        return graph
    runs = list(_runs([_alike(graph, zone) for zone in graph.zones]))
    if not runs:
        return graph
    return _Fold(graph, runs).graph


def _alike(graph: LevelGraph, zone: Zone) -> object:
    """What two zones share if they are copies of each other."""
    problems = [p for p in graph.problems if p.zone == zone.id]
    return (
        zone.label,
        zone.frames,
        tuple(replace(p, id="", zone="", source="", level=_bare(p.level)) for p in problems),
    )


def _bare(name: str) -> str:
    return re.sub(r"\[\d+\]", "[*]", name)


def _runs(kinds: Sequence[object]) -> Iterator[_Run]:
    """From left to right the run that covers most; the shorter copy if two cover the same."""
    at = 0
    while at < len(kinds):
        found = [_Run(at, p, _times(kinds, at, p)) for p in range(1, min(_LONGEST, len(kinds) // 2) + 1)]
        best = max(found, key=lambda run: (run.end if run.count > 1 else 0, -run.period), default=None)
        if best is None or best.count < 2:
            at += 1
            continue
        yield best
        at = best.end


def _times(kinds: Sequence[object], at: int, period: int) -> int:
    first, count = kinds[at : at + period], 1
    while kinds[at + period * count : at + period * (count + 1)] == first:
        count += 1
    return count


class _Fold:
    """Every zone and problem of a later copy stands for the one in the first copy."""

    def __init__(self, graph: LevelGraph, runs: Sequence[_Run]) -> None:
        self.first: dict[str, str] = {}
        """The problem of the first copy that a problem stands for."""
        self.copy: dict[str, int] = {}
        self.times: dict[str, int] = {}
        zones, frames = list(graph.zones), list(graph.frames)
        kept: dict[str, Zone] = {zone.id: zone for zone in zones}
        inside = {zone.id: [p for p in graph.problems if p.zone == zone.id] for zone in zones}
        for number, run in enumerate(runs):
            name = f"alike[{number}]"
            frames.append(Frame(name, "alike", run.count))
            for place in range(run.start, run.end):
                copy, offset = divmod(place - run.start, run.period)
                zone, model = zones[place], zones[run.start + offset]
                self._match(inside[zone.id], inside[model.id], copy, run.count)
                if copy:
                    del kept[zone.id]
                else:
                    kept[zone.id] = replace(zone, frames=(*zone.frames, name))
        sums = self._parameters(graph)
        problems = tuple(self._grown(p, sums) for p in graph.problems if self.first.get(p.id, p.id) == p.id)
        present = {p.id for p in problems}
        self.graph = replace(
            graph,
            problems=problems,
            zones=tuple(kept.values()),
            frames=tuple(frames),
            transfers=tuple(self._transfers(graph)),
            levels=tuple(_levels(graph, present)),
            parts=tuple(part for part in graph.parts if set(part) <= present),
        )

    def _match(self, these: list[Problem], those: list[Problem], copy: int, count: int) -> None:
        for here, there in zip(these, those, strict=True):
            self.first[here.id], self.copy[here.id], self.times[here.id] = there.id, copy, count

    def _parameters(self, graph: LevelGraph) -> dict[str, int]:
        sums: dict[str, int] = {}
        for p in graph.problems:
            first = self.first.get(p.id, p.id)
            sums[first] = sums.get(first, 0) + p.parameters
        return sums

    def _grown(self, problem: Problem, sums: dict[str, int]) -> Problem:
        times = self.times.get(problem.id, 1)
        return replace(problem, multiplicity=problem.multiplicity * times, parameters=sums[problem.id])

    def _transfers(self, graph: LevelGraph) -> Iterator[Transfer]:
        found: dict[tuple[str, str, str, bool], Transfer] = {}
        for t in graph.transfers:
            source, target = self.first.get(t.source, t.source), self.first.get(t.target, t.target)
            # From one copy to another: as between the copies of a `repeat`.
            apart = self.copy.get(t.source, 0) != self.copy.get(t.target, 0)
            both = t.source in self.copy and t.target in self.copy
            moved = replace(t, source=source, target=target, wraps=t.wraps or (both and apart))
            key = (t.kind, source, target, moved.wraps)
            before = found.get(key)
            carries = dict.fromkeys((*(before.carries if before else ()), *t.carries))
            found[key] = replace(moved, carries=tuple(carries))
        yield from found.values()


def _levels(graph: LevelGraph, present: set[str]) -> Iterator[Level]:
    """The levels that are left, their ranks within a frequency counted anew."""
    left = [
        replace(level, problems=tuple(id for id in level.problems if id in present)) for level in graph.levels
    ]
    left = [level for level in left if level.problems]
    rates = [frequency(level.clock) for level in left]
    for index, level in enumerate(left):
        main = level.number.split(".")[0]
        tiers = rates.count(rates[index])
        rank = rates[:index].count(rates[index]) + 1
        yield replace(
            level,
            number=f"{main}.{rank}" if tiers > 1 else main,
            reason=re.sub(rf"\b{main}\.\d+\b", f"{main}.{rank - 1}", level.reason)
            if rank > 1
            else level.reason,
        )
