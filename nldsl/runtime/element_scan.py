"""A memory that decays entry by entry and is written without looking at it, with a hand-written way back.

    M_t = a_t * M_{t-1} + sum_p add_tp along_tp^T,   y_t = M_t q_t

Tokens of a piece are worked on together in everything but the recurrence itself, which is one multiply-add
for each in memory that is used again for every piece; only the states between pieces are kept.

Shapes: `B` batch, `T` tokens, `H` heads, `p` pieces, `m` queries, `V` values, `K` keys; inside a piece
tokens stand first, `[C, B, H, V, K]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order

PIECE = 32
"""Tokens between two states that are kept."""


def element_scan(
    gate: Tensor, log: bool, along: Tensor, add: Tensor, q: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Answers `[B, T, H, m, V]` and the state behind the last token.

    `gate` (its logarithm if `log`) broadcasts to `[B, T, H, V, K]`; `along [B, T, H, p, K]`,
    `add [B, T, H, p, V]`, `q [B, T, H, m, K]`, `state [B, H, V, K]`; `T` is at least 1.

    >>> one, half = torch.ones(1, 2, 1, 1, 1), torch.full((1, 2, 1, 1, 1), 0.5)
    >>> y, last = element_scan(half, False, one, one, one, torch.zeros(1, 1, 1, 1))
    >>> y.flatten().tolist(), last.item()
    ([1.0, 1.5], 1.5)
    """
    y, last = _ElementScan.apply(gate, log, along, add, q, state)  # type: ignore[no-untyped-call]
    return y, last


class _Rows(NamedTuple):
    """What is given for each token, `[B, T, ...]`, or its gradient."""

    gate: Tensor
    along: Tensor
    add: Tensor
    q: Tensor

    def pieces(self) -> list[_Rows]:
        """Views with tokens first, `[C, B, ...]`."""
        return [_Rows(*row) for row in zip(*(_pieces(x) for x in self), strict=True)]


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = x.transpose(0, 1).split(PIECE)
    return found


class _Room:
    """The memory in which a piece is worked on."""

    def __init__(self, state: Tensor, back: bool = False) -> None:
        self.gates, self.states = (state.new_empty(PIECE, *state.shape) for _ in range(2))
        self.flow = state.new_empty(PIECE, *state.shape) if back else state
        self.rows, self.factors = self.states.unbind(0), self.gates.unbind(0)

    def fill(self, one: _Rows, log: bool, old: Tensor) -> Tensor:
        """The states behind every token, `[C, B, H, V, K]`."""
        count = one.q.shape[0]
        gates, states = self.gates[:count], self.states[:count]
        if log:
            torch.exp(one.gate.expand_as(gates), out=gates)
        else:
            gates.copy_(one.gate.expand_as(gates))
        _outer(one.add, one.along, states)
        for row, factor in zip(self.rows[:count], self.factors, strict=False):
            row.addcmul_(factor, old)
            old = row
        return states


def _outer(left: Tensor, right: Tensor, out: Tensor) -> None:
    """`out = sum_p left_p right_p^T`."""
    if left.shape[-2] == 1:
        torch.mul(left.mT, right, out=out)
    else:
        torch.matmul(left.mT, right, out=out)


class _ElementScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, log: bool, along: Tensor, add: Tensor, q: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        given = _Rows(gate, along, add, q)
        y = state.new_empty(*q.shape[:-1], state.shape[-2])
        room, now, kept = _Room(state), state, []
        for one, answer in zip(given.pieces(), _pieces(y), strict=True):
            kept.append(now)
            states = room.fill(one, log, now)
            answer.copy_(one.q @ states.mT)
            now = states[-1].clone()
        ctx.log = log
        ctx.save_for_backward(*given, *kept)
        return y, now

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        given, kept = _Rows(*saved[:4]), saved[4:]
        made = _Rows(*(torch.empty_like(x, memory_format=torch.contiguous_format) for x in given))
        room, (dy, flow) = _Room(kept[0], back=True), grads
        rows = zip(given.pieces(), kept, _pieces(dy), made.pieces(), strict=True)
        for one, old, answer, flows in reversed(list(rows)):
            flow = _back(one, ctx.log, old, answer, flow, room, flows)
        return made.gate, None, made.along, made.add, made.q, flow


def _back(one: _Rows, log: bool, old: Tensor, dy: Tensor, flow: Tensor, room: _Room, made: _Rows) -> Tensor:
    """Fill the gradients of one piece; return that of the state in front of it."""
    states, count = room.fill(one, log, old), one.q.shape[0]
    gates, d_states = room.gates[:count], room.flow[:count]
    made.q.copy_(dy @ states)
    _outer(dy, one.q, d_states)
    rows = d_states.unbind(0)
    rows[-1].add_(flow)
    for n in range(count - 2, -1, -1):
        rows[n].addcmul_(gates[n + 1], rows[n + 1])
    made.add.copy_(one.along @ d_states.mT)
    made.along.copy_(one.add @ d_states)
    before = gates[0] * rows[0]
    if log:
        d_states.mul_(gates)
    d_states[1:].mul_(states[:-1])
    rows[0].mul_(old)
    made.gate.copy_(d_states.sum_to_size(made.gate.shape))
    return before
