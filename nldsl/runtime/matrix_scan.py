"""Matrix memories with a gate per element (Mamba-1): no chunk form exists, a scan over the tokens remains.

The recurrence is as written; only the states between pieces of `PIECE` tokens are kept for the backward pass,
which computes each piece again.  Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from nldsl.runtime.chunks import stand_in
from nldsl.runtime.matrix_tokens import (
    Side,
    States,
    Step,
    at_token,
    kept,
    one_token,
    tokens_of,
    with_axis,
)

PIECE = 32
"""Tokens between two states that are kept."""


class Scanned(NamedTuple):
    """The answers to all queries, `[B, T, m * H, V]`, and what is left behind the last token."""

    reads: tuple[Tensor, ...]
    state: Tensor
    held: States


Query = tuple[Tensor, int]
"""`q [B, T, m * H, K]`, and after how many steps of each token it reads."""


def scan_memory(
    state: Tensor,
    steps: Sequence[Step],
    queries: Sequence[Query],
    *,
    mask: Tensor | None,
    side: Side = "key",
    start: Tensor | None = None,
    held: States = (),
) -> Scanned:
    """A memory one token after the other; arguments as for `matrix_memory.MatrixMemory`.

    Gates may be `[B, T, H, V, K]`; all but the first two axes may have size 1.

    >>> from nldsl.runtime.matrix_tokens import Gate, Piece, Write
    >>> k, half = torch.ones(1, 2, 1, 1), torch.full((1, 2, 1, 1, 1), 0.5)
    >>> steps = (Gate(half), Write((Piece(k, k),)))
    >>> scan_memory(torch.zeros(1, 1, 1, 1), steps, [(k, 2)], mask=None).reads[0].flatten().tolist()
    [1.0, 1.5]
    """
    turned = side == "value"
    current = (state if start is None else state - start, *held)
    current, origin = (_turned(current), None if start is None else start.mT) if turned else (current, start)
    steps = [with_axis(s, origin) for s in steps]
    heads = state.shape[1]
    grouped = [(q.unflatten(2, (heads, -1)), at) for q, at in queries]
    pieces: list[list[Tensor]] = [[] for _ in queries]
    for first in range(0, tokens_of(steps), PIECE):
        window = slice(first, min(first + PIECE, tokens_of(steps)))
        found, current = _piece(window, current, (steps, grouped), mask, side)
        for answers, part in zip(pieces, found, strict=True):
            answers.append(part)
    reads = []
    for (q, _), answers in zip(grouped, pieces, strict=True):
        y = torch.cat(answers, 1) if answers else q.new_zeros(*q.shape[:-1], state.shape[-2])
        y = y if start is None else y + q @ start.mT
        reads.append(stand_in(y.flatten(2, 3), mask))
    last, *rest = _turned(current) if turned else current
    return Scanned(tuple(reads), last if start is None else last + start, tuple(rest))


def _turned(states: States) -> States:
    return tuple(x.mT for x in states)


_Given = tuple[Sequence[Step], Sequence[Query]]


def _piece(
    window: slice, states: States, given: _Given, mask: Tensor | None, side: Side
) -> tuple[list[Tensor], States]:
    """Some tokens, computed again in the backward pass."""
    leaves, form = tree_flatten(given)
    cut = [x[:, window] if isinstance(x, Tensor) else x for x in leaves]
    live, count = None if mask is None else mask[:, window], len(states)

    def run(*parts: Tensor) -> tuple[list[Tensor], States]:
        return _tokens(parts[:count], tree_unflatten(list(parts[count:]), form), live, side)

    made: tuple[list[Tensor], States] = checkpoint(
        run, *states, *cut, use_reentrant=False, preserve_rng_state=False
    )
    return made


def _tokens(states: States, given: _Given, mask: Tensor | None, side: Side) -> tuple[list[Tensor], States]:
    steps, queries = given
    answers: list[list[Tensor]] = [[] for _ in queries]
    for t in range(tokens_of(steps)):
        live = None if mask is None else mask[:, t, None, None, None]
        places = one_token(states, [at_token(s, t) for s in steps], side)
        for rows, (q, at) in zip(answers, queries, strict=True):
            memory = places[at][0]
            rows.append(q[:, t] @ (memory if side == "value" else memory.mT))
        states = kept(live, places[-1], states)
    return [torch.stack(rows, 1) for rows in answers], states
