"""When each level reads, is written and commits: predicted from the clocks of a program alone.

Token clocks run along the tokens of one sequence, step clocks along the steps of the optimiser.
Every token counts as a real one (padding ticks no clock).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nldsl.graph import LevelGraph, Problem, build_graph
from nldsl.graph.levels import spoken
from nldsl.graph.places import Place, places
from nldsl.spec.program import Block, Memory, Program, Read, TaskWrite, Update, Write

MOST = 65_536
"""Tokens and steps a timeline may be long."""

_LEAST, _STEPS = 32, 12

Times = Sequence[int]
"""Indices of tokens or steps, rising; a `range` where they are predicted."""


@dataclass(frozen=True)
class Track:
    """Problems of one level that act at the same times; tokens and steps count from 0.

    `reads`: somebody asks them.  `writes`: the running state changes.  `commits`: what was written
    becomes visible, behind the writes of that token.  `bases`: where gradients are taken moves, if
    it moves at other times than the commits (the fastest of them).  `resets`: the state starts anew
    behind this token.
    """

    level: str
    frequency: str
    unit: Literal["tokens", "steps"]
    every: int
    kind: str
    problems: tuple[str, ...]
    names: tuple[str, ...]
    reads: Times
    writes: Times
    commits: Times
    bases: Times = ()
    resets: Times = ()

    @property
    def lanes(self) -> tuple[tuple[str, Times], ...]:
        """The events by name, without the rare ones that do not occur."""
        always = (("reads", self.reads), ("writes", self.writes), ("commits", self.commits))
        rare = (("bases", self.bases), ("resets", self.resets))
        return (*always, *(lane for lane in rare if lane[1]))

    def pending(self, time: int) -> int:
        """How many writes nobody can see yet, behind token or step `time`."""
        last = max((t for t in (*self.commits, *self.resets) if t <= time), default=-1)
        return sum(last < t <= time for t in self.writes)


@dataclass(frozen=True)
class Timeline:
    """The tracks of a program, fastest level first."""

    name: str
    tokens: int
    steps: int
    tracks: tuple[Track, ...]

    def length(self, unit: str) -> int:
        """How long the axis of `unit` is."""
        return self.tokens if unit == "tokens" else self.steps

    def to_json(self) -> dict[str, Any]:
        """The timeline as plain data: `{name tokens steps tracks [{level ... reads {..} ...}]}`.

        Times that come at regular distances are `{first every count}`, others `{at [..]}`.
        """
        tracks = []
        for track in self.tracks:
            about = {
                "level": track.level, "frequency": track.frequency, "unit": track.unit,
                "every": track.every, "kind": track.kind, "problems": list(track.problems),
                "names": list(track.names),
            }  # fmt: skip
            tracks.append({**about, **{name: _plain(times) for name, times in track.lanes}})
        return {"name": self.name, "tokens": self.tokens, "steps": self.steps, "tracks": tracks}


def timeline(program: Program, tokens: int | None = None, graph: LevelGraph | None = None) -> Timeline:
    """The timeline of one sequence of `tokens` tokens, by default twice the slowest token clock.

    Raises:
        ValueError: `tokens` is not between 1 and `MOST`.

    Example:
        >>> from nldsl.graph import open_program
        >>> track = timeline(open_program("hope"), tokens=64).tracks[0]
        >>> track.names, track.commits
        (('Mk', 'Mv', 'Me', 'Ma'), range(15, 64, 16))
    """
    graph = graph or build_graph(program)
    length = _default_length(graph) if tokens is None else tokens
    if not 1 <= length <= MOST:
        raise ValueError(f"a timeline is 1 to {MOST} tokens long, not {length}")
    slowest = max((p.clock.every for p in graph.problems if p.clock.unit == "steps"), default=1)
    steps = min(MOST, max(_STEPS, 3 * slowest))
    acts = {id: (block, memory) for id, block, memory in _memories(program)}
    found: list[Track] = []
    for level in reversed(graph.levels):
        same: dict[object, list[Problem]] = {}
        tracks: dict[object, Track] = {}
        for id in level.problems:
            problem = graph.problem(id)
            times = _Times(problem, length, steps)
            in_context = id in acts and problem.clock.unit != "steps"
            track = times.memory(*acts[id]) if in_context else times.training(problem)
            key = (track.unit, track.every, problem.kind, *track.lanes)
            same.setdefault(key, []).append(problem)
            tracks.setdefault(key, track)
        found.extend(_named(tracks[key], level.number, members) for key, members in same.items())
    return Timeline(program.name, length, steps, tuple(found))


def _default_length(graph: LevelGraph) -> int:
    clocks = [p.clock.every for p in graph.problems if p.clock.unit == "tokens"]
    return min(MOST, max(_LEAST, 2 * max(clocks, default=1)))


def _memories(program: Program) -> Iterator[tuple[str, Block, Memory]]:
    for block, place in places(program.root, Place.root(program)):
        for memory in block.memories:
            yield place.memory_id(memory), block, memory


def _named(track: Track, level: str, members: list[Problem]) -> Track:
    slow = members[0].kind == "slow parameters"
    # The name of slow parameters lists their roles, which the blocks of a model share.
    every = (name for p in members for name in (p.name.split(", ") if slow else (p.name,)))
    names = tuple(dict.fromkeys(every))
    about = (level, track.frequency, track.unit, track.every, members[0].kind)
    return Track(*about, tuple(p.id for p in members), names, *_lanes(track))


def _lanes(track: Track) -> tuple[Times, Times, Times, Times, Times]:
    return track.reads, track.writes, track.commits, track.bases, track.resets


class _Times:
    """When one problem acts."""

    def __init__(self, problem: Problem, tokens: int, steps: int) -> None:
        self.problem, self.tokens, self.steps = problem, tokens, steps

    def memory(self, block: Block, memory: Memory) -> Track:
        """A memory of the architecture, along the tokens."""
        reads = any(_asks(statement, memory.name) for statement in block.body)
        writes = [s for s in block.body if isinstance(s, Write | Update) and s.memory == memory.name]
        tasks = any(isinstance(s, TaskWrite) and s.memory == memory.name for s in block.body)
        every = memory.clock.every if memory.clock.unit == "tokens" else 1
        # The error of a position is felt when its target, the next token, arrives.
        first = 1 if tasks else 0
        written: Times = range(first, self.tokens) if writes or tasks else ()
        gathered = bool(writes) and all(isinstance(s, Write) and s.at_commit for s in writes)
        period = memory.reset_every
        commits = self._beats(first, every, period) if written else ()
        bases = {s.base_every for s in writes if isinstance(s, Write) and not s.append} - {every}
        return self._track(
            "tokens",
            every,
            range(self.tokens) if reads else (),
            commits if gathered else written,
            commits,
            self._beats(0, min(bases), period) if bases else (),
            self._beats(first, period, 0) if period else (),
        )

    def _beats(self, first: int, every: int, period: int) -> Times:
        """Every `every` tokens, counted anew behind a reset."""
        if period % every == 0:
            return range(first + every - 1, self.tokens, every)
        starts = range(first, self.tokens, period)
        return tuple(t for s in starts for t in range(s + every - 1, min(s + period, self.tokens), every))

    def training(self, problem: Problem) -> Track:
        """What training moves, along the steps; what never moves is only read."""
        every = problem.clock.every if problem.clock.unit == "steps" else 0
        fires = range(every - 1, self.steps, every) if every else range(0)
        gathers = problem.kind in ("optimiser memory", "task memory") and problem.clock.every > 1
        writes = range(self.steps) if gathers else fires
        return self._track("steps", every, range(self.steps), writes, fires, (), ())

    def _track(self, unit: Literal["tokens", "steps"], every: int, *lanes: Times) -> Track:
        names = (self.problem.id,), (self.problem.name,)
        spoken_clock = spoken(self.problem.clock)
        return Track("", spoken_clock, unit, every, self.problem.kind, *names, *lanes)


def _asks(statement: object, memory: str) -> bool:
    if not isinstance(statement, Read):
        return False
    return statement.memory == memory or (statement.solve is not None and statement.solve[0] == memory)


def _plain(times: Times) -> dict[str, Any]:
    if isinstance(times, range):
        return {"first": times.start, "every": times.step, "count": len(times)}
    return {"at": list(times)}
