"""A matrix memory in chunks, whatever its filter is: the general form.

Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.catalog.widths import doubled_width, general_width
from nldsl.runtime.across import Across, anchored, logs_of
from nldsl.runtime.chunks import Layout, cut, layout_of, mask_out, tokens
from nldsl.runtime.filter_kernels import MomentumForm, MomentumGates
from nldsl.runtime.filters import Filter, Place, Places
from nldsl.runtime.make_filter import make_filter
from nldsl.runtime.matrix_tokens import Entry, Gate, Momentum, Piece, Side, States, Step, Write
from nldsl.runtime.memory_scan import memory_scan
from nldsl.runtime.once import once
from nldsl.runtime.state_filter import StateFilter
from nldsl.runtime.triangular import inverse_of_unit_lower


class _Columns(NamedTuple):
    """Pieces side by side: `along [X, C * m, A]`, `add`, and for those that erase `seen` (times the rate)."""

    along: Tensor
    add: Tensor
    seen: Tensor | None
    seen_at: Places
    at: Places


class _Found(NamedTuple):
    """States in front of every chunk, the values really added, and the state behind the last chunk."""

    states: Tensor
    added: Tensor | None
    last: Tensor


class Chunks:
    """All chunks at once, and a short loop over their states."""

    def __init__(
        self,
        states: States,
        steps: Sequence[Step],
        momentum: Momentum | None,
        mask: Tensor | None,
        side: Side,
        chunk: int,
    ) -> None:
        self.side, self.mask, self.size = side, mask, states[0].shape[-1]
        self.layout = _layout(steps, chunk)
        self.places = places_of(steps)
        self.steps, self.before = steps, states
        self.across = self._across()
        self.momentum = momentum
        self.found: _Found | None = None

    @once
    def erased(self) -> _Columns | None:
        """The pieces that erase."""
        return self._columns(True)

    @once
    def plain(self) -> _Columns | None:
        """The pieces that do not."""
        return self._columns(False)

    def _cut(self, x: Tensor) -> Tensor:
        return cut(mask_out(x, self.mask), self.layout)

    def _gate(self, gate: Gate) -> tuple[Tensor, bool]:
        """In chunks; masked tokens and the padding do not decay, nor does anything across (see `across`)."""
        if gate.across:
            layout = self.layout
            return self.before[0].new_zeros(layout.chunks * layout.batch * layout.heads, layout.width), True
        if gate.log is not None:
            return self._cut(gate.log), True
        assert gate.value is not None
        return 1.0 - self._cut(1.0 - gate.value), False

    def _across(self) -> Across | None:
        """What gates per channel of the other side do, if there are any."""
        logs = logs_of(gates_of(self.steps))
        given = [self._cut(x) for x in logs if x is not None]
        if not given:
            return None
        none = torch.zeros_like(given[0])
        stages = [none if x is None else given.pop(0) for x in logs]
        return Across(torch.stack(stages, 2), (self.layout.chunks, self.layout.batch * self.layout.heads))

    @once
    def filter(self) -> Filter:
        """How writes and the state in front of a chunk fade."""
        steps, momentum, like = self.steps, self.momentum, self.before[0]
        signed = has_channels(steps) and any(g.log is None for g in gates_of(steps))
        if momentum is None and (len(self.before) > 1 or signed):
            return self._state_filter()
        if momentum is None:
            return make_filter([self._gate(g) for g in gates_of(steps)], self.layout.width, like)
        form, given = self.momentum_gates(momentum)
        return form.filter(given)

    def momentum_gates(self, momentum: Momentum) -> tuple[MomentumForm, MomentumGates]:
        """What the filter of a rule with momentum is made from."""
        steps, like = self.steps, self.before[0]
        gates = [self._gate(g) for g in gates_of(steps)]
        is_log = all(log for _, log in gates)
        plain = [g.exp() if log and not is_log else g for g, log in gates]
        beta, beta_log = self._gate(momentum.beta)
        shape = (*beta.shape, 0)
        stacked = torch.stack(plain, 2) if plain else beta.new_zeros(shape)
        write = next(i for i, s in enumerate(steps) if isinstance(s, Write))
        read = momentum.read
        if read is None and (
            self.mask is not None or self.layout.chunks * self.layout.width > self.layout.tokens
        ):
            # A token that does not count takes nothing up.
            read = like.new_ones(self.layout.batch, self.layout.tokens, self.layout.heads)
        read = None if read is None else self._cut(read)
        form = MomentumForm(is_log, beta_log, self.places[write][1])
        return form, MomentumGates(stacked, beta, read)

    def _entry(self, entry: Entry, idle: float) -> Tensor:
        """A number of a mixing in chunks `[X, C]`; masked tokens and the padding have `idle`."""
        layout, like = self.layout, self.before[0]
        if not isinstance(entry, Tensor):
            if entry == idle:
                return like.new_full((layout.chunks * layout.batch * layout.heads, layout.width), idle)
            entry = like.new_full((layout.batch, layout.tokens, layout.heads), entry)
        return self._cut(entry) if idle == 0.0 else idle - self._cut(idle - entry)

    def _state_filter(self) -> StateFilter:
        """One matrix per step, and what every piece adds to the states."""
        count, steps, into = len(self.before), [], []
        size = self.size if has_channels(self.steps) else 1

        def wide(cell: Tensor) -> Tensor:
            return (cell if cell.dim() == 3 else cell.unsqueeze(-1)).expand(*cell.shape[:2], size)

        for step in self.steps:
            rows = (step if isinstance(step, Write) else Write(())).mixed(count).rows
            cells = [[self._entry(e, float(i == j)) for j, e in enumerate(r)] for i, r in enumerate(rows)]
            gate = gate_of(step)
            if gate is not None:
                value, is_log = self._gate(gate)
                cells[0][0] = value.exp() if is_log else value
            else:
                cells[0][0] = self._entry(1.0, 1.0)
            steps.append(torch.stack([torch.stack([wide(c) for c in r], 2) for r in cells], 2))
            if isinstance(step, Write):
                ways = step.mixed(count).into
                into += [torch.stack([self._entry(e, 0.0) for e in way], 2) for way in ways]
        return StateFilter(steps, into)

    def standing(self) -> list[tuple[Piece, Place, Place]]:
        """Every piece, the place from where it looks, and the place where it writes."""
        found: list[tuple[Piece, Place, Place]] = []
        for step, (above, below) in zip(self.steps, self.places, strict=True):
            looked = step.mixed(len(self.before)).of if isinstance(step, Write) else ()
            for piece, of in zip(step.pieces if isinstance(step, Write) else (), looked, strict=True):
                found.append((piece, above._replace(part=of), below._replace(part=len(found))))
        return found

    def _columns(self, erasing: bool) -> _Columns | None:
        """Pieces of one kind, token by token in program order."""
        along, add, seen = [], [], []
        seen_at: list[Place] = []
        at: list[Place] = []
        for piece, above, below in self.standing():
            if (piece.seen is not None) != erasing:
                continue
            along.append(self._cut(piece.along))
            add.append(self._cut(piece.add))
            if piece.seen is not None and piece.erase is not None:
                seen.append(self._cut(piece.seen * piece.erase.unsqueeze(-1)))
            count = piece.along.shape[3]
            seen_at += [above] * count
            at += [below] * count
        if not along:
            return None
        joined = [torch.cat(x, 2).flatten(1, 2) for x in (along, add)]
        asked = torch.cat(seen, 2).flatten(1, 2) if seen else None
        value = joined[1] if self.across is None else self.across.written(joined[1], tuple(at))
        return _Columns(joined[0], value, asked, tuple(seen_at), tuple(at))

    @property
    def last(self) -> States:
        """The states behind the last token."""
        states: States = self._run().last.split(self.size, -1)
        return states

    def _run(self) -> _Found:
        """Values really added, and the states in front of all chunks; once."""
        if self.found is None:
            self.found = self._made()
        return self.found

    def _made(self) -> _Found:
        lead = (self.layout.chunks, self.layout.batch * self.layout.heads)
        whole = self.before[0] if len(self.before) == 1 else torch.cat(self.before, -1)
        total = self.filter.total
        total = total.expand(lead[0] * lead[1], *total.shape[1:]).unflatten(0, lead)
        update = target = erased = ended = None
        if self.plain is not None:
            update = self.plain.add.mT @ self.filter.ended(self.plain.along, self.plain.at)
            update = update.unflatten(0, lead)
        if self.erased is not None:
            target, erased = (x.unflatten(0, lead) for x in self._transform(self.erased))
            ended = self.filter.ended(self.erased.along, self.erased.at).unflatten(0, lead)
        begun, between = whole.flatten(0, 1), None
        if self.across is not None:
            begun, between = self.across.begun(begun), self.across.between
        added, states, last = memory_scan(target, erased, ended, update, total, begun, between)
        added = None if added is None else added.flatten(0, 1)
        return _Found(states.flatten(0, 1), added, last.view(whole.shape))

    def _transform(self, pieces: _Columns) -> tuple[Tensor, Tensor]:
        """`u = first - second M_0^T` solves the triangular system of the chunk."""
        assert pieces.seen is not None
        strict = self.filter.gram(pieces.seen, pieces.seen_at, pieces.along, pieces.at)
        inverse = inverse_of_unit_lower(strict)
        wanted = pieces.add
        if self.plain is not None:
            gram = self.filter.gram(pieces.seen, pieces.seen_at, self.plain.along, self.plain.at)
            wanted = wanted - gram @ self.plain.add
        return inverse @ wanted, inverse @ self.filter.carried(pieces.seen, pieces.seen_at)

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        group = q.shape[3]
        places = (self._at(at),) * group
        rows = self._cut(q).flatten(1, 2)
        if self.side == "key":
            y = self._read_key(rows, places)
            y = y if self.across is None else self.across.shown(y, places)
        else:
            rows = rows if self.across is None else self.across.shown(rows, places)
            y = self._read_value(rows, places)
        y = y.unflatten(1, (self.layout.width, group)).flatten(2)
        answers: Tensor = tokens(y, self.layout, None).unflatten(-1, (group, -1))
        return answers

    def _at(self, at: int) -> Place:
        gates = self.places[at - 1][1].gates if at else 0
        return Place(gates, at)

    def _sources(self) -> list[tuple[_Columns, Tensor]]:
        """Pieces with the values they really added."""
        found = []
        added = self._run().added
        if self.erased is not None and added is not None:
            found.append((self.erased, added))
        if self.plain is not None:
            found.append((self.plain, self.plain.add))
        return found

    def _read_key(self, rows: Tensor, places: Places) -> Tensor:
        y = self.filter.carried(rows, places) @ self._run().states.mT
        for pieces, added in self._sources():
            y = y + self.filter.gram(rows, places, pieces.along, pieces.at) @ added
        return y

    def _read_value(self, rows: Tensor, places: Places) -> Tensor:
        y = self.filter.met(rows @ self._run().states, places)
        for pieces, added in self._sources():
            y = y + self.filter.spread(rows @ added.mT, places, pieces.along, pieces.at)
        return y


def chunk_for(steps: Sequence[Step], mask: Tensor | None, chunk: int) -> int:
    """`chunk` or halves of it, as gates across ask for; 0 if no single token has an anchor."""
    while chunk:
        width = _layout(steps, chunk).width
        if anchored(gates_of(steps), mask, width):
            return chunk
        chunk = chunk // 2 if width > 1 else 0
    return 0


def _layout(steps: Sequence[Step], chunk: int) -> Layout:
    """Chunks of equal width; several rows that erase share it, gates per channel need a power of two."""
    pieces = [p for s in steps if isinstance(s, Write) for p in s.pieces]
    chunk = general_width(sum(p.along.shape[3] for p in pieces if p.seen is not None), chunk)
    layout = layout_of(pieces[0].along, chunk)
    if not has_channels(steps):
        return layout
    width = doubled_width(min(chunk, layout.tokens))
    return layout._replace(width=width, chunks=-(-layout.tokens // width))


def has_channels(steps: Sequence[Step]) -> bool:
    """Whether a gate has a number per channel."""
    along = [g for g in gates_of(steps) if not g.across]
    return any((g.log if g.log is not None else g.value).dim() == 4 for g in along)  # type: ignore[union-attr]


def gates_of(steps: Sequence[Step]) -> list[Gate]:
    """All gates in order."""
    return [g for g in map(gate_of, steps) if g is not None]


def gate_of(step: Step) -> Gate | None:
    """The gate of a step, if it has one."""
    return step if isinstance(step, Gate) else step.gate


def places_of(steps: Sequence[Step]) -> list[tuple[Place, Place]]:
    """For every step the places in front of it and behind it; what it adds is seen by later steps."""
    found, gates = [], 0
    for number, step in enumerate(steps):
        above = gates
        gates += gate_of(step) is not None
        found.append((Place(above, number), Place(gates, number)))
    return found
