"""Any matrix memory that is written every token by rank-one pieces, chunk by chunk.

A token is a list of steps.  A gate scales the memory, `M <- M diag(a)`; a write adds pieces,
`M <- a M + sum_p (w_p - e_p (M s_p)) c_p^T`, all of which see the memory above the write.  Inside a chunk
the values really added, `u = w - e (M s)`, solve one unit lower triangular system, whatever the causal
filter between the tokens is: gates per head or per channel of the key, several writes per token, momentum.
With `side = "value"` the memory is written along its values, `M <- M + c (w - e (M^T s))^T` (Oja), with
gates per channel of the value.

Shapes: `B` batch, `T` tokens, `H` heads, `p` pieces alike, `A` size of the side along which is written, `D`
of the other one; `X` = chunks x batch x heads, `C` tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.chunks import Layout, cut, layout_of, mask_out, tokens
from nldsl.runtime.filters import Filter, MomentumFilter, Place, Places
from nldsl.runtime.make_filter import make_filter
from nldsl.runtime.matrix_tokens import Gate, Momentum, Side, Step, Tokens, Write, tokens_of, with_axis
from nldsl.runtime.memory_scan import memory_scan
from nldsl.runtime.triangular import inverse_of_unit_lower


class MatrixMemory:
    """A memory after a sequence of tokens: reads at any place of every token, and the state behind them.

    `state [B, H, V, K]`; `start`: the state toward which gates pull and from which erases measure the
    distance; `mask [B, T]`: false tokens leave the state alone and read zero.

    >>> k = torch.eye(2).view(1, 2, 1, 2)
    >>> memory = MatrixMemory(torch.zeros(1, 1, 2, 2), (Write((Piece(k, 3.0 * k),)),), mask=None)
    >>> memory.read(k, at=1).flatten().tolist(), memory.read(k, at=0).flatten().tolist()
    ([3.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        state: Tensor,
        steps: Sequence[Step],
        *,
        mask: Tensor | None,
        side: Side = "key",
        start: Tensor | None = None,
        momentum: Momentum | None = None,
        chunk: int = 64,
    ) -> None:
        self.mask, self.side, self.start = mask, side, start
        self.before = state if start is None else state - start
        if side == "value":
            self.before = self.before.mT
            start = None if start is None else start.mT
        steps = [with_axis(s, start) for s in steps]
        made = Tokens if tokens_of(steps) <= 1 else Chunks
        self.form: Tokens | Chunks = made(self.before, steps, momentum, mask, side, chunk)

    @property
    def state(self) -> Tensor:
        """The state behind the last token, `[B, H, V, K]`."""
        last = self.form.last.mT if self.side == "value" else self.form.last
        return last if self.start is None else last + self.start

    @property
    def momentum(self) -> Tensor:
        """What the filter of a rule with momentum holds behind the last token."""
        return self.form.last_momentum

    def read(self, q: Tensor, *, at: int) -> Tensor:
        """`M q` after the first `at` steps of each token; `q [B, T, m * H, K]` with m queries per copy."""
        heads = self.before.shape[1]
        grouped = q.unflatten(2, (heads, -1))
        y = self.form.read(grouped, at)
        if self.start is not None:
            y = y + grouped @ self.start.mT
        return mask_out(y.flatten(2, 3), self.mask)

    def solve(self, q: Tensor, *, at: int, ridge: float, iterations: int) -> Tensor:
        """`iterations` steps of conjugate gradients from zero for `(M + ridge) x = q` (MesaNet)."""
        x, r, p = torch.zeros_like(q), q, q
        size = (r * r).sum(-1, keepdim=True)
        for _ in range(iterations):
            image = self.read(p, at=at) + ridge * p
            # A residual of zero stays: nothing is divided by it.
            done = size == 0
            rate = size / (p * image).sum(-1, keepdim=True).masked_fill(done, 1.0)
            x, r = x + rate * p, r - rate * image
            left = (r * r).sum(-1, keepdim=True)
            p = r + left / size.masked_fill(done, 1.0) * p
            size = left
        return x


class _Columns(NamedTuple):
    """Pieces side by side: `along [X, C * m, A]`, `add`, and for those that erase `seen` (times the rate)."""

    along: Tensor
    add: Tensor
    seen: Tensor | None
    seen_at: Places
    at: Places


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
        self.places = _places(steps)
        self.filter = self._filter(steps, momentum, state)
        self.erased, self.plain = self._columns(steps, True), self._columns(steps, False)
        self._run(state, momentum)

    def _cut(self, x: Tensor) -> Tensor:
        return cut(mask_out(x, self.mask), self.layout)

    def _gate(self, gate: Gate) -> tuple[Tensor, bool]:
        """In chunks; masked tokens and the padding do not decay."""
        if gate.log is not None:
            return self._cut(gate.log), True
        assert gate.value is not None
        return 1.0 - self._cut(1.0 - gate.value), False

    def _filter(self, steps: Sequence[Step], momentum: Momentum | None, like: Tensor) -> Filter:
        gates = [self._gate(g) for g in map(_gate_of, steps) if g is not None]
        if momentum is None:
            return make_filter(gates, self.layout.width, like)
        is_log = all(log for _, log in gates)
        plain = [g.exp() if log and not is_log else g for g, log in gates]
        beta, beta_log = self._gate(momentum.beta)
        shape = (*beta.shape, 0)
        stacked = torch.stack(plain, 2) if plain else beta.new_zeros(shape)
        write = next(i for i, s in enumerate(steps) if isinstance(s, Write))
        read = self._cut(momentum.read)
        return MomentumFilter(stacked, is_log, beta, beta_log, read, self.places[write][1])

    def _columns(self, steps: Sequence[Step], erasing: bool) -> _Columns | None:
        """The pieces that erase, or those that do not, token by token in program order."""
        along, add, seen = [], [], []
        seen_at: list[Place] = []
        at: list[Place] = []
        for step, (above, below) in zip(steps, self.places, strict=True):
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

    def _run(self, state: Tensor, momentum: Momentum | None) -> None:
        """Values really added, and the states in front of all chunks."""
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
        self.states = states.flatten(0, 1)
        self.added = None if added is None else added.flatten(0, 1)
        final = last.view(whole.shape)
        self.last, self.last_momentum = final[..., : self.size], final[..., self.size :]

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
        if self.erased is not None and self.added is not None:
            found.append((self.erased, self.added))
        if self.plain is not None:
            found.append((self.plain, self.plain.add))
        return found

    def _read_key(self, rows: Tensor, places: Places) -> Tensor:
        y = self.filter.carried(rows, places) @ self.states.mT
        for pieces, added in self._sources():
            y = y + self.filter.gram(rows, places, pieces.along, pieces.at) @ added
        return y

    def _read_value(self, rows: Tensor, places: Places) -> Tensor:
        y = self.filter.carried(rows @ self.states, places)
        for pieces, added in self._sources():
            y = y + self.filter.spread(rows @ added.mT, places, pieces.along, pieces.at)
        return y


def _layout(like: Tensor, steps: Sequence[Step], chunk: int) -> Layout:
    """Chunks of equal width; gates per channel need a power of two."""
    layout = layout_of(like, chunk)
    channels = any((g.log if g.log is not None else g.value).dim() == 4 for s in steps if (g := _gate_of(s)))  # type: ignore[union-attr]
    if not channels:
        return layout
    width = 1 << (min(chunk, layout.tokens) - 1).bit_length()
    return layout._replace(width=width, chunks=-(-layout.tokens // width))


def _gate_of(step: Step) -> Gate | None:
    return step if isinstance(step, Gate) else step.gate


def _places(steps: Sequence[Step]) -> list[tuple[Place, Place]]:
    """For every step the places in front of it and behind it; what it adds is seen by later steps."""
    found, gates = [], 0
    for number, step in enumerate(steps):
        above = gates
        gates += _gate_of(step) is not None
        found.append((Place(above, number), Place(gates, number)))
    return found
