"""What one sample remembers.  Everything is per sample: two samples never meet.

The interpreter works on private copies, so a state that was handed out never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nldsl.reference.functions import Weights
from nldsl.reference.inner import Lesson

Change = Callable[[Tensor], Tensor]


def _mapped(weights: Weights, change: Change) -> Weights:
    return {name: change(w) for name, w in weights.items()}


def _lesson(lesson: Lesson, change: Change) -> Lesson:
    return Lesson(
        tuple(map(change, lesson.keys)),
        tuple(map(change, lesson.targets)),
        None if lesson.weight is None else change(lesson.weight),
    )


@dataclass
class ParametricState:
    """A memory with weights.

    running: the recurrence | committed: what reads see if C > 1 | bases: running as of the last
    multiple of b, for every b in use | origin: where it started since the reset (`r` of `toward
    init`) | slots, steps: memories and application counts of rules, per term | windows: the last
    lessons of `over c tokens`, per term and copy | gathered: gradients waiting for `at commit`.
    """

    running: Weights
    origin: Weights
    committed: Weights | None
    bases: dict[int, Weights]
    slots: dict[str, Weights]
    steps: dict[int, int]
    windows: dict[int, list[list[Lesson]]]
    gathered: dict[int, Weights]
    count: int = 0
    learned: bool = True
    """Whether `origin` is the learned parameter (no state: cutting history leaves it alone) or zero."""

    def map(self, change: Change) -> ParametricState:
        """The same state with `change` applied to every tensor."""
        return ParametricState(
            _mapped(self.running, change),
            dict(self.origin) if self.learned else _mapped(self.origin, change),
            None if self.committed is None else _mapped(self.committed, change),
            {b: _mapped(w, change) for b, w in self.bases.items()},
            {s: _mapped(w, change) for s, w in self.slots.items()},
            dict(self.steps),
            {n: [[_lesson(x, change) for x in copy] for copy in w] for n, w in self.windows.items()},
            {n: _mapped(w, change) for n, w in self.gathered.items()},
            self.count,
            self.learned,
        )

    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything worth comparing."""
        yield from ((f"running.{n}", w) for n, w in self.running.items())
        yield from ((f"committed.{n}", w) for n, w in (self.committed or {}).items())
        yield from ((f"slots.{s}.{n}", w) for s, ws in self.slots.items() for n, w in ws.items())
        yield from ((f"gathered.{i}.{n}", w) for i, ws in self.gathered.items() for n, w in ws.items())
        yield "count", torch.tensor(self.count)


@dataclass
class CacheState:
    """A softmax memory: the keys `[H, d]` and values seen so far, oldest first."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    count: int = 0

    def map(self, change: Change) -> CacheState:
        """The same state with `change` applied to every tensor."""
        return CacheState(list(map(change, self.keys)), list(map(change, self.values)), self.count)

    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Keys `[S, H, d]`, values and count."""
        if self.keys:
            yield "keys", torch.stack(self.keys)
            yield "values", torch.stack(self.values)
        yield "count", torch.tensor(self.count)


@dataclass
class TaskState:
    """A memory that minimises the task: parameter + `delta`, and the gradient waiting for its clock.

    `leaf` is `delta` as the variable of the segment under way.  `anchor` is the delta at the last
    reset (zero but for `init M2`).  `gate`, `arguments` are the last token's values of the rule.
    """

    delta: Weights
    pending: Weights
    leaf: Weights
    anchor: Weights
    slots: dict[str, Weights]
    arguments: dict[str, Tensor] = field(default_factory=dict)
    gate: Tensor | None = None
    step: int = 0
    count: int = 0

    def map(self, change: Change) -> TaskState:
        """The same state with `change` applied to every tensor; the variables of the segment stay."""
        return replace(
            self,
            arguments=_mapped(self.arguments, change),
            gate=None if self.gate is None else change(self.gate),
            slots=dict(self.slots),
        )

    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Delta, pending gradient, slots and count."""
        yield from ((f"delta.{n}", w) for n, w in self.delta.items())
        yield from ((f"pending.{n}", w) for n, w in self.pending.items())
        yield from ((f"slots.{s}.{n}", w) for s, ws in self.slots.items() for n, w in ws.items())
        yield "count", torch.tensor(self.count)


MemoryState = ParametricState | CacheState | TaskState


@dataclass
class Sample:
    """One sequence: its memories and tails by absolute path, tokens seen, and the token held back."""

    memories: dict[str, MemoryState] = field(default_factory=dict)
    tails: dict[str, list[Tensor]] = field(default_factory=dict)
    position: int = 0
    held: tuple[Tensor, ...] | None = None

    def map(self, change: Change) -> Sample:
        """The same sample with `change` applied to every tensor that carries a graph."""
        return Sample(
            {path: m.map(change) for path, m in self.memories.items()},
            {path: [change(x) for x in tail] for path, tail in self.tails.items()},
            self.position,
            self.held,
        )


@dataclass
class State:
    """The state of a batch.  `scored` counts the targets of the `learn` call that returned it."""

    samples: list[Sample]
    scored: int = 0

    def copy(self) -> State:
        """A private copy that shares the tensors."""
        return State([s.map(lambda x: x) for s in self.samples], 0)

    def detach(self) -> State:
        """The same values without history: back-propagation through time ends here."""
        return State([s.map(lambda x: x.detach()) for s in self.samples], self.scored)

    def memory(self, path: str) -> dict[str, Tensor]:
        """One memory, by absolute path: its entries stacked over the batch."""
        return {k[len(path) + 1 :]: v for k, v in flatten_state(self).items() if k.startswith(path + ".")}


def flatten_state(state: State) -> dict[str, Tensor]:
    """Every entry of every memory, and every tail, stacked over the batch.

    Keys: `<memory>.running.<weight>`, `.committed.<weight>`, `.count`, `.slots.<slot>.<weight>`,
    `.gathered.<term>.<weight>`; softmax `.keys .values` (zeros behind the last one, `.count` tells);
    task memories `.delta.<weight> .pending.<weight>`; `<primitive>.tail`; and `position`.
    """
    rows = [dict(_sample_entries(s)) for s in state.samples]
    return {
        name: _stacked([row.get(name) for row in rows]) for name in dict.fromkeys(n for r in rows for n in r)
    }


def _sample_entries(sample: Sample) -> Iterator[tuple[str, Tensor]]:
    for path, memory in sample.memories.items():
        yield from ((f"{path}.{name}", value) for name, value in memory.entries())
    for path, tail in sample.tails.items():
        if tail:
            yield f"{path}.tail", torch.stack(tail)
    yield "position", torch.tensor(sample.position)


def _stacked(rows: list[Tensor | None]) -> Tensor:
    """Samples side by side; caches of different lengths are filled up with zeros."""
    full = max((r for r in rows if r is not None), key=lambda r: r.shape[0] if r.dim() else 0)
    filled = []
    for row in rows:
        rest = full.shape[0] - (0 if row is None else row.shape[0]) if full.dim() else 0
        empty = full.new_zeros(rest, *full.shape[1:]) if full.dim() else torch.zeros_like(full)
        filled.append(empty if row is None else torch.cat([row, empty]) if rest else row)
    return torch.stack(filled)
