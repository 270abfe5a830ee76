"""What a token does to a matrix memory, and the recurrence as written, for one token.

Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

Side = Literal["key", "value"]


class Gate(NamedTuple):
    """`M <- a M`: `[B, T, H]`, or `[B, T, H, A]` per channel of the side along which is written.

    In a scan also `[B, T, H, V, K]` or what broadcasts to it.  `log` where the logarithm is at hand, else
    `value`, which may have any sign.  `across`: one number per channel of the other side, `[B, T, H, D]`, as
    its logarithm (see `across`).
    """

    value: Tensor | None = None
    log: Tensor | None = None
    across: bool = False


class Piece(NamedTuple):
    """`(add - erase * (M seen)) along^T`.

    `along`, `seen` `[B, T, H, A]`, `add [B, T, H, D]`, `erase [B, T, H]`.  With an axis of pieces alike
    behind the heads, all four have it: `[B, T, H, p, A]`.  `from_state` is the part of `erase` that looks at
    the memory itself where the rest looks at its distance from `start`.
    """

    along: Tensor
    add: Tensor
    seen: Tensor | None = None
    erase: Tensor | None = None
    from_state: Tensor | None = None

    def alone(self) -> Piece:
        """Without the axis of pieces alike, where there is one of them."""
        along, *others = (x if x is None else x.squeeze(3) for x in self)
        same = self.seen is self.along
        return Piece(along, *(along if same and n == 1 else x for n, x in enumerate(others)))  # type: ignore[arg-type]


Entry = Tensor | float
"""A number per head and token `[B, T, H]`, or one for all."""


class Mixing(NamedTuple):
    """What a write does to the memory `Z_0` and to what its rules remember, `Z_1 ..`: all step together.

    `Z_i <- sum_j rows[i][j] Z_j + sum_p into[p][i] piece_p`; piece `p` looks at `Z_(of[p])`.  `rows[0][0]`
    is the gate of the write.
    """

    rows: tuple[tuple[Entry, ...], ...]
    into: tuple[tuple[Entry, ...], ...]
    of: tuple[int, ...]


class Write(NamedTuple):
    """All pieces see the memory above the write; `gate` decays it in the same step."""

    pieces: tuple[Piece, ...]
    gate: Gate | None = None
    mixing: Mixing | None = None

    def mixed(self, states: int) -> Mixing:
        """Its mixing; of a write that knows the memory alone, the other states stay as they are."""
        if self.mixing is not None:
            return self.mixing
        rows = tuple(tuple(float(i == j) for j in range(states)) for i in range(states))
        return Mixing(rows, (rows[0],) * len(self.pieces), (0,) * len(self.pieces))


class Momentum(NamedTuple):
    """`P <- beta P + pieces`, `M <- M + read P`: gates `[B, T, H]` (`read` `None`: one), `P [B, H, V, K]`."""

    beta: Gate
    read: Tensor | None
    state: Tensor

    def mixing(self, pieces: int) -> Mixing:
        """The same as the mixing of the one write."""
        beta = self.beta.log.exp() if self.beta.log is not None else self.beta.value
        assert beta is not None
        read = 1.0 if self.read is None else self.read
        return Mixing(((1.0, read * beta), (0.0, beta)), ((read, 1.0),) * pieces, (0,) * pieces)


Step = Gate | Write


Given = TypeVar("Given")


def widened(given: Given) -> Given:
    """The same tensors, in tuples or alone, with half-wide ones as float32.

    >>> widened(Gate(log=torch.zeros(1, dtype=torch.bfloat16))).log.dtype
    torch.float32
    """
    if isinstance(given, Tensor):
        wide = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given
        return wide  # type: ignore[return-value]
    if not isinstance(given, tuple):
        return given
    parts = [widened(x) for x in given]
    return type(given)(*parts) if hasattr(given, "_fields") else type(given)(parts)


def with_axis(step: Step, start: Tensor | None) -> Step:
    """Pieces with an axis `p`, and what looks at the memory itself in terms of the distance from `start`."""
    if isinstance(step, Gate):
        return step
    return step._replace(pieces=tuple(_with_axis(p, start) for p in step.pieces))


def _with_axis(piece: Piece, start: Tensor | None) -> Piece:
    along, add, seen, erase, from_state = piece
    if along.dim() == 4:
        same = seen is along
        along, add = along.unsqueeze(3), add.unsqueeze(3)
        seen, erase, from_state = (x if x is None else x.unsqueeze(3) for x in (seen, erase, from_state))
        # What stands at the key itself has kernels of its own.
        seen = along if same else seen
    if start is not None and seen is not None and from_state is not None:
        add = add - from_state.unsqueeze(-1) * (seen @ start.mT)
    return Piece(along, add, seen, erase)


def tokens_of(steps: Sequence[Step]) -> int:
    """How many tokens the steps are given for."""
    return next(p for s in steps if isinstance(s, Write) for p in s.pieces).along.shape[1]


States = tuple[Tensor, ...]
"""The memory, and what its rules remember."""


def one_token(states: States, steps: Sequence[Step], side: Side) -> list[States]:
    """The states after 0, 1, ... steps of one token; no tensor has an axis of tokens."""
    places = [states]
    for step in steps:
        if isinstance(step, Gate):
            states = (gated(states[0], step, side), *states[1:])
        else:
            states = _written(states, step, side)
        places.append(states)
    return places


def _written(states: States, write: Write, side: Side) -> States:
    rows, into, of = write.mixed(len(states))
    added = []
    for (along, add, seen, erase, _), looked in zip(write.pieces, of, strict=True):
        value = add
        if seen is not None and erase is not None:
            value = value - erase.unsqueeze(-1) * (seen @ states[looked].mT)
        added.append(value.mT @ along)
    made = []
    for i, row in enumerate(rows):
        parts = [_times(e, z) for j, (e, z) in enumerate(zip(row, states, strict=True)) if (i, j) != (0, 0)]
        if i == 0:
            parts.append(states[0] if write.gate is None else gated(states[0], write.gate, side))
        parts += [_times(way[i], piece) for way, piece in zip(into, added, strict=True)]
        found = [p for p in parts if p is not None]
        made.append(sum(found[1:], found[0]) if found else torch.zeros_like(states[i]))
    return tuple(made)


def _times(entry: Entry, state: Tensor) -> Tensor | None:
    """A state scaled by a number `[B, H]`; `None` for zero."""
    if isinstance(entry, Tensor):
        return state * entry[..., None, None]
    return None if entry == 0.0 else state if entry == 1.0 else state * entry


def gated(state: Tensor, gate: Gate, side: Side) -> Tensor:
    """A state scaled by the gate of one token, `[B, H]`, `[B, H, A]` or `[B, H, V, K]`."""
    value = gate.log.exp() if gate.log is not None else gate.value
    assert value is not None
    wide = spread(value.unsqueeze(1), gate.across).squeeze(1)
    return state * (wide.mT if side == "value" and value.dim() == 4 else wide)


def spread(value: Tensor, across: bool) -> Tensor:
    """Numbers of a gate `[B, T, H]`, or per channel or entry, beside states `[B, T, H, V, K]`."""
    if value.dim() == 3:
        return value[..., None, None]
    if value.dim() == 4:
        return value.unsqueeze(-1 if across else -2)
    return value


def at_token(step: Step, t: int) -> Step:
    """The part of a step that belongs to one token."""
    if isinstance(step, Gate):
        return _gate_at(step, t)
    pieces = tuple(Piece(*(None if x is None else x[:, t] for x in p)) for p in step.pieces)  # type: ignore[arg-type]
    gate = None if step.gate is None else _gate_at(step.gate, t)
    if step.mixing is None:
        return Write(pieces, gate)
    rows, into = (tuple(tuple(_entry_at(e, t) for e in r) for r in x) for x in step.mixing[:2])
    return Write(pieces, gate, Mixing(rows, into, step.mixing.of))


def _gate_at(gate: Gate, t: int) -> Gate:
    value, log = (None if x is None else x[:, t] for x in gate[:2])
    return Gate(value, log, gate.across)


def _entry_at(entry: Entry, t: int) -> Entry:
    return entry[:, t] if isinstance(entry, Tensor) else entry


def with_momentum(steps: Sequence[Step], momentum: Momentum | None) -> list[Step]:
    """The momentum of the one write as its mixing."""
    if momentum is None:
        return list(steps)
    return [s._replace(mixing=momentum.mixing(len(s.pieces))) if isinstance(s, Write) else s for s in steps]


class Tokens:
    """The recurrence as written, for decoding (`T` = 1) and for `T` = 0."""

    def __init__(
        self,
        states: States,
        steps: Sequence[Step],
        mask: Tensor | None,
        side: Side,
    ) -> None:
        self.side, self.places, self.last = side, [states] * (len(steps) + 1), states
        if tokens_of(steps) == 0:
            return
        self.places = one_token(states, [at_token(s, 0) for s in steps], side)
        live = None if mask is None else mask[:, 0, None, None, None]
        self.last = kept(live, self.places[-1], states)

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        state = self.places[at][0]
        return q @ (state if self.side == "value" else state.mT).unsqueeze(1)


def keep(live: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` where the token counts."""
    return new if live is None else torch.where(live, new, old)


def kept(live: Tensor | None, new: States, old: States) -> States:
    """The same for several states."""
    return tuple(keep(live, a, b) for a, b in zip(new, old, strict=True))
