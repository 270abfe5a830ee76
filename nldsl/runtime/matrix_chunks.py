"""A matrix memory in chunks, whatever its filter is: the general form.

Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.chunks import Layout, cut, layout_of, mask_out, tokens
from nldsl.runtime.filters import Filter, MomentumFilter, Place, Places
from nldsl.runtime.make_filter import make_filter
from nldsl.runtime.matrix_tokens import Gate, Momentum, Side, Step, Write
from nldsl.runtime.memory_scan import memory_scan
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
        state: Tensor,
        steps: Sequence[Step],
        momentum: Momentum | None,
        mask: Tensor | None,
        side: Side,
        chunk: int,
    ) -> None:
        self.side, self.mask, self.size = side, mask, state.shape[-1]
        writes = [s for s in steps if isinstance(s, Write)]
        erasing = sum(p.along.shape[3] for w in writes for p in w.pieces if p.seen is not None)
        like = next(p.along for w in writes for p in w.pieces)
        self.layout = _layout(like, steps, chunk // max(1, erasing) or 1)
        self.places = places_of(steps)
        self.filter = self._filter(steps, momentum, state)
        self.steps = steps
        self.before = state, momentum
        self.found: _Found | None = None

    @cached_property
    def erased(self) -> _Columns | None:
        """The pieces that erase."""
        return self._columns(True)

    @cached_property
    def plain(self) -> _Columns | None:
        """The pieces that do not."""
        return self._columns(False)

    def _cut(self, x: Tensor) -> Tensor:
        return cut(mask_out(x, self.mask), self.layout)

    def _gate(self, gate: Gate) -> tuple[Tensor, bool]:
        """In chunks; masked tokens and the padding do not decay."""
        if gate.log is not None:
            return self._cut(gate.log), True
        assert gate.value is not None
        return 1.0 - self._cut(1.0 - gate.value), False

    def _filter(self, steps: Sequence[Step], momentum: Momentum | None, like: Tensor) -> Filter:
        gates = [self._gate(g) for g in map(gate_of, steps) if g is not None]
        if momentum is None:
            return make_filter(gates, self.layout.width, like)
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
        return MomentumFilter(stacked, is_log, beta, beta_log, read, self.places[write][1])

    def _columns(self, erasing: bool) -> _Columns | None:
        """Pieces of one kind, token by token in program order."""
        along, add, seen = [], [], []
        seen_at: list[Place] = []
        at: list[Place] = []
        for step, (above, below) in zip(self.steps, self.places, strict=True):
            for piece in step.pieces if isinstance(step, Write) else ():
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
        return _Columns(joined[0], joined[1], asked, tuple(seen_at), tuple(at))

    @property
    def last(self) -> Tensor:
        """The state behind the last token."""
        return self._run().last[..., : self.size]

    @property
    def last_momentum(self) -> Tensor:
        """What the filter holds behind the last token."""
        return self._run().last[..., self.size :]

    def _run(self) -> _Found:
        """Values really added, and the states in front of all chunks; once."""
        if self.found is None:
            self.found = self._made()
        return self.found

    def _made(self) -> _Found:
        state, momentum = self.before
        lead = (self.layout.chunks, self.layout.batch * self.layout.heads)
        whole = state if momentum is None else torch.cat([state, momentum.state], -1)
        total, mix = self.filter.total, self.filter.mix
        if isinstance(self.filter, MomentumFilter):
            total = self.filter.state_total(self.size)
        total = total.expand(lead[0] * lead[1], -1, -1).unflatten(0, lead)
        update = target = erased = ended = None
        if self.plain is not None:
            update = self.plain.add.mT @ self.filter.ended(self.plain.along, self.plain.at)
            update = update.unflatten(0, lead)
        if self.erased is not None:
            target, erased = (x.unflatten(0, lead) for x in self._transform(self.erased))
            ended = self.filter.ended(self.erased.along, self.erased.at).unflatten(0, lead)
        mix = None if mix is None else mix.unflatten(0, lead)
        added, states, last = memory_scan(target, erased, ended, update, total, mix, whole.flatten(0, 1))
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
        y = self._read_key(rows, places) if self.side == "key" else self._read_value(rows, places)
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
        y = self.filter.carried(rows @ self._run().states, places)
        for pieces, added in self._sources():
            y = y + self.filter.spread(rows @ added.mT, places, pieces.along, pieces.at)
        return y


def _layout(like: Tensor, steps: Sequence[Step], chunk: int) -> Layout:
    """Chunks of equal width; gates per channel need a power of two."""
    layout = layout_of(like, chunk)
    channels = any((g.log if g.log is not None else g.value).dim() == 4 for s in steps if (g := gate_of(s)))  # type: ignore[union-attr]
    if not channels:
        return layout
    width = 1 << (min(chunk, layout.tokens) - 1).bit_length()
    return layout._replace(width=width, chunks=-(-layout.tokens // width))


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
