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
    `value`, which may have any sign.
    """

    value: Tensor | None = None
    log: Tensor | None = None


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


class Write(NamedTuple):
    """All pieces see the memory above the write; `gate` decays it in the same step."""

    pieces: tuple[Piece, ...]
    gate: Gate | None = None


class Momentum(NamedTuple):
    """`P <- beta P + pieces`, `M <- M + read P`: gates `[B, T, H]` (`read` `None`: one), `P [B, H, V, K]`."""

    beta: Gate
    read: Tensor | None
    state: Tensor


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


def one_token(
    state: Tensor, steps: Sequence[Step], momentum: Momentum | None, side: Side
) -> tuple[list[Tensor], Tensor | None]:
    """The state after 0, 1, ... steps of one token, and the new momentum; no tensor has an axis of tokens."""
    states, held = [state], None if momentum is None else momentum.state
    for step in steps:
        if isinstance(step, Gate):
            state = gated(state, step, side)
        else:
            added = torch.zeros_like(state)
            for along, add, seen, erase, _ in step.pieces:
                value = add
                if seen is not None and erase is not None:
                    value = value - erase.unsqueeze(-1) * (seen @ state.mT)
                added = added + value.mT @ along
            kept = state if step.gate is None else gated(state, step.gate, side)
            if momentum is not None and held is not None:
                held = gated(held, momentum.beta, side) + added
                added = held if momentum.read is None else momentum.read[..., None, None] * held
            state = kept + added
        states.append(state)
    return states, held


def gated(state: Tensor, gate: Gate, side: Side) -> Tensor:
    """A state scaled by the gate of one token, `[B, H]`, `[B, H, A]` or `[B, H, V, K]`."""
    value = gate.log.exp() if gate.log is not None else gate.value
    assert value is not None
    if value.dim() == 2:
        return state * value[..., None, None]
    if value.dim() == 3:
        return state * value.unsqueeze(-2)
    return state * (value.mT if side == "value" else value)


def at_token(step: Step, t: int) -> Step:
    """The part of a step that belongs to one token."""
    if isinstance(step, Gate):
        return _gate_at(step, t)
    pieces = tuple(Piece(*(None if x is None else x[:, t] for x in p)) for p in step.pieces)  # type: ignore[arg-type]
    return Write(pieces, None if step.gate is None else _gate_at(step.gate, t))


def _gate_at(gate: Gate, t: int) -> Gate:
    return Gate(*(None if x is None else x[:, t] for x in gate))


def momentum_at(momentum: Momentum | None, state: Tensor | None, t: int) -> Momentum | None:
    """The filter at one token, holding `state`."""
    if momentum is None or state is None:
        return None
    read = None if momentum.read is None else momentum.read[:, t]
    return Momentum(_gate_at(momentum.beta, t), read, state)


class Tokens:
    """The recurrence as written, for decoding (`T` = 1) and for `T` = 0."""

    def __init__(
        self,
        state: Tensor,
        steps: Sequence[Step],
        momentum: Momentum | None,
        mask: Tensor | None,
        side: Side,
    ) -> None:
        self.side, self.states, self.last = side, [state] * (len(steps) + 1), state
        self.last_momentum = state if momentum is None else momentum.state
        if tokens_of(steps) == 0:
            return
        part = momentum_at(momentum, self.last_momentum, 0)
        self.states, held = one_token(state, [at_token(s, 0) for s in steps], part, side)
        live = None if mask is None else mask[:, 0, None, None, None]
        self.last = keep(live, self.states[-1], state)
        if held is not None:
            self.last_momentum = keep(live, held, self.last_momentum)

    def read(self, q: Tensor, at: int) -> Tensor:
        """`[B, T, H, m, K]` to `[B, T, H, m, V]`."""
        state = self.states[at]
        return q @ (state if self.side == "value" else state.mT).unsqueeze(1)


def keep(live: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` where the token counts."""
    return new if live is None else torch.where(live, new, old)
