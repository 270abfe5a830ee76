"""Matrix memories that begin anew by their own clock: the periods between resets, side by side.

No period knows anything of the one before it, so the periods of a sequence are further samples: periods
of one length are one memory (`matrix_memory`, `matrix_scan`), whatever its form, and a call that begins or
ends within a period has a memory for each end.  Shapes as in `matrix_memory`; `P` periods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_scan import Query, Scanned, scan_memory
from nldsl.runtime.matrix_tokens import Momentum, States, Step, tokens_of, widened

Given = TypeVar("Given")


class Resets(NamedTuple):
    """Behind every `every` tokens a memory begins anew with `fresh`; `passed [B]` have been since."""

    every: int
    passed: Tensor
    fresh: States


class _Part(NamedTuple):
    """Neighbouring periods of one length: where the first one begins, and how many there are."""

    start: int
    periods: int
    width: int


class Periods:
    """Sequences `[B, T, ...]` as samples `[B * P, W, ...]`, for every length `W` of a period, and back.

    >>> resets = Resets(2, torch.tensor([1]), (torch.zeros(1, 1),))
    >>> periods = Periods(resets, None, 6)
    >>> [periods.fold(torch.arange(6.0).view(1, 6), part).tolist() for part in periods.parts]
    [[[0.0]], [[1.0, 2.0], [3.0, 4.0]], [[5.0]]]
    """

    def __init__(self, resets: Resets, mask: Tensor | None, tokens: int) -> None:
        self.resets = resets
        self.grid = ChunkGrid(resets.passed, mask, tokens, resets.every)
        self.laid: dict[int, tuple[Tensor, Tensor]] = {}
        self.parts, start = [], 0
        for width, alike in groupby(self.grid.widths):
            periods = len(list(alike))
            self.parts.append(_Part(start, periods, width))
            start += periods * width

    def fold(self, given: Given, part: _Part) -> Given:
        """Every tensor of some tuples as samples; what was one tensor stays one."""
        made: Given = self._folded(given, part, {})
        return made

    def _folded(self, given: Any, part: _Part, known: dict[int, Tensor]) -> Any:
        if isinstance(given, Tensor):
            if id(given) not in known:
                known[id(given)] = self._samples(self._slots(given), part)
            return known[id(given)]
        if not isinstance(given, tuple):
            return given
        inner = [self._folded(x, part, known) for x in given]
        return type(given)(*inner) if hasattr(given, "_fields") else tuple(inner)

    def _slots(self, x: Tensor) -> Tensor:
        """Laid on the slots of all periods, once; kept beside `x`, whose number would else be another's."""
        if id(x) not in self.laid:
            self.laid[id(x)] = (x, self.grid.fill(x))
        return self.laid[id(x)][1]

    def _samples(self, x: Tensor, part: _Part) -> Tensor:
        start, periods, width = part
        cut = x[:, start : start + periods * width]
        return cut if periods == 1 else cut.unflatten(1, (periods, width)).flatten(0, 1)

    def valid(self, part: _Part) -> Tensor | None:
        """Which of their slots hold a token, `[B * P, W]`; `None` if all do."""
        slots = self.grid.slots
        return None if slots is None else self._samples(slots, part)

    def begun(self, states: States, part: _Part) -> States:
        """What every period begins with: `states` the first one of a call, all others anew."""
        given = states if part.start == 0 else self.resets.fresh
        if part.periods == 1:
            return given
        rows = []
        for first, fresh in zip(given, self.resets.fresh, strict=True):
            later = fresh.unsqueeze(1).expand(-1, part.periods - 1, *fresh.shape[1:])
            rows.append(torch.cat([first.unsqueeze(1), later], 1).flatten(0, 1))
        return tuple(rows)

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """The sequence of what the samples of every part have, `[B, T, ...]`."""
        rows = [
            y if part.periods == 1 else y.unflatten(0, (-1, part.periods)).flatten(1, 2)
            for y, part in zip(pieces, self.parts, strict=True)
        ]
        return self.grid.unlay(rows[0] if len(rows) == 1 else torch.cat(rows, 1))

    def last(self, found: Sequence[States]) -> States:
        """The states behind the call: of the period in which a sample stands, or what it begins anew with."""
        made = []
        for states, fresh in zip(zip(*found, strict=True), self.resets.fresh, strict=True):
            last = states[-1].unflatten(0, (-1, self.parts[-1].periods))[:, -1]
            if self.grid.slots is not None:
                last = self._standing(states)
            # A period that is over has ended; without a token nothing ends.
            over = (self.grid.count % self.resets.every == 0) & (self.grid.count > self.resets.passed)
            made.append(choose(_one(over), fresh, last))
        return tuple(made)

    def _standing(self, states: Sequence[Tensor]) -> Tensor:
        """Of every sample the state of the last period that holds a token of it."""
        parts = zip(states, self.parts, strict=True)
        every = torch.cat([x.unflatten(0, (-1, part.periods)) for x, part in parts], 1)
        passed = torch.div(self.grid.count - 1, self.resets.every, rounding_mode="floor").clamp_min(0)
        return every[torch.arange(len(every), device=every.device), passed]


def _one(flags: Tensor) -> bool | Tensor:
    """One answer, if all samples have the same."""
    same = flags.numel() > 0 and bool((flags == flags[0]).all())
    return bool(flags[0]) if same else flags


class ResettingMemory:
    """A `MatrixMemory` that begins anew with `resets.fresh` (the memory, then what its rules remember).

    >>> from nldsl.runtime.matrix_tokens import Piece, Write
    >>> k = torch.ones(1, 3, 1, 1)
    >>> zero = torch.zeros(1, 1, 1, 1)
    >>> anew = Resets(2, torch.tensor([0]), (zero,))
    >>> memory = ResettingMemory(zero, (Write((Piece(k, k),)),), anew, mask=None)
    >>> memory.read(k, at=1).flatten().tolist(), memory.state.item()
    ([1.0, 2.0, 1.0], 1.0)
    """

    def __init__(
        self,
        state: Tensor,
        steps: Sequence[Step],
        resets: Resets,
        *,
        mask: Tensor | None,
        momentum: Momentum | None = None,
        held: States = (),
        **options: Any,
    ) -> None:
        steps = tuple(steps)
        self.periods = Periods(resets._replace(fresh=widened(resets.fresh)), mask, tokens_of(steps))
        rest = held if momentum is None else (momentum.state,)
        self.memories = []
        for part in self.periods.parts:
            first, *others = self.periods.begun((state, *rest), part)
            given: dict[str, Any] = {"held": tuple(others)}
            if momentum is not None:
                beta, read = self.periods.fold((momentum.beta, momentum.read), part)
                given = {"momentum": Momentum(beta, read, others[0])}
            found = self.periods.fold(steps, part)
            valid = self.periods.valid(part)
            self.memories.append(MatrixMemory(first, found, mask=valid, **given, **options))
        self.after: States | None = None

    def read(self, q: Tensor, *, at: int) -> Tensor:
        """As `MatrixMemory.read`."""
        return self._asked(q, lambda memory, rows: memory.read(rows, at=at))

    def solve(self, q: Tensor, *, at: int, ridge: float, iterations: int) -> Tensor:
        """As `MatrixMemory.solve`."""
        options: dict[str, Any] = {"at": at, "ridge": ridge, "iterations": iterations}
        return self._asked(q, lambda memory, rows: memory.solve(rows, **options))

    def _asked(self, q: Tensor, ask: Callable[[MatrixMemory, Tensor], Tensor]) -> Tensor:
        pairs = zip(self.memories, self.periods.parts, strict=True)
        return self.periods.join([ask(memory, self.periods.fold(q, part)) for memory, part in pairs])

    @property
    def _last(self) -> States:
        if self.after is None:
            self.after = self.periods.last([(m.state, *m.held) for m in self.memories])
        return self.after

    @property
    def state(self) -> Tensor:
        """The state behind the last token."""
        return self._last[0]

    @property
    def momentum(self) -> Tensor:
        """What the filter of a rule with momentum holds behind the last token."""
        return self._last[1]

    @property
    def held(self) -> States:
        """What its rules remember behind the last token."""
        return self._last[1:]


def scan_resetting(
    state: Tensor,
    steps: Sequence[Step],
    queries: Sequence[Query],
    resets: Resets,
    *,
    mask: Tensor | None,
    held: States = (),
    **options: Any,
) -> Scanned:
    """`matrix_scan.scan_memory` of a memory that begins anew with `resets.fresh`: as long as one period."""
    steps = tuple(steps)
    periods = Periods(resets, mask, tokens_of(steps))
    found = []
    for part in periods.parts:
        first, *others = periods.begun((state, *held), part)
        asked = tuple((periods.fold(q, part), at) for q, at in queries)
        given = periods.fold(steps, part), asked
        valid = periods.valid(part)
        found.append(scan_memory(first, *given, mask=valid, held=tuple(others), **options))
    reads = tuple(periods.join([f.reads[i] for f in found]) for i in range(len(queries)))
    last, *rest = periods.last([(f.state, *f.held) for f in found])
    return Scanned(reads, last, tuple(rest))
