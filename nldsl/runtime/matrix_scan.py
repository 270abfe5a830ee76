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

from nldsl.runtime.chunks import mask_out
from nldsl.runtime.matrix_tokens import (
    Momentum,
    Side,
    Step,
    at_token,
    keep,
    momentum_at,
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
    momentum: Tensor


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
    momentum: Momentum | None = None,
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
    current = state if start is None else state - start
    current, origin = (current.mT, None if start is None else start.mT) if turned else (current, start)
    steps = [with_axis(s, origin) for s in steps]
    heads, held = state.shape[1], None if momentum is None else momentum.state
    grouped = [(q.unflatten(2, (heads, -1)), at) for q, at in queries]
    pieces: list[list[Tensor]] = [[] for _ in queries]
    for first in range(0, tokens_of(steps), PIECE):
        window = slice(first, min(first + PIECE, tokens_of(steps)))
        found, current, held = _piece(window, current, held, (steps, grouped, momentum), mask, side)
        for answers, part in zip(pieces, found, strict=True):
            answers.append(part)
    reads = []
    for (q, _), answers in zip(grouped, pieces, strict=True):
        y = torch.cat(answers, 1) if answers else q.new_zeros(*q.shape[:-1], state.shape[-2])
        y = y if start is None else y + q @ start.mT
        reads.append(mask_out(y.flatten(2, 3), mask))
    last = current.mT if turned else current
    last = last if start is None else last + start
    return Scanned(tuple(reads), last, last if held is None else held)


_Given = tuple[Sequence[Step], Sequence[Query], Momentum | None]


def _piece(
    window: slice, state: Tensor, held: Tensor | None, given: _Given, mask: Tensor | None, side: Side
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Some tokens, computed again in the backward pass."""
    leaves, form = tree_flatten(given)
    # The momentum's own state is no sequence; it is replaced by `held` at every token.
    own = None if given[2] is None else given[2].state
    cut = [x[:, window] if isinstance(x, Tensor) and x is not own else x for x in leaves]
    live = None if mask is None else mask[:, window]

    def run(state: Tensor, held: Tensor | None, *parts: Tensor) -> tuple[list[Tensor], Tensor, Tensor | None]:
        steps, queries, momentum = tree_unflatten(list(parts), form)
        return _tokens(state, held, (steps, queries, momentum), live, side)

    made: tuple[list[Tensor], Tensor, Tensor | None] = checkpoint(
        run, state, held, *cut, use_reentrant=False, preserve_rng_state=False
    )
    return made


def _tokens(
    state: Tensor, held: Tensor | None, given: _Given, mask: Tensor | None, side: Side
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    steps, queries, momentum = given
    answers: list[list[Tensor]] = [[] for _ in queries]
    for t in range(tokens_of(steps)):
        live = None if mask is None else mask[:, t, None, None, None]
        part = momentum_at(momentum, held, t)
        states, new = one_token(state, [at_token(s, t) for s in steps], part, side)
        for rows, (q, at) in zip(answers, queries, strict=True):
            rows.append(q[:, t] @ (states[at] if side == "value" else states[at].mT))
        state = keep(live, states[-1], state)
        held = new if new is None or held is None else keep(live, new, held)
    return [torch.stack(rows, 1) for rows in answers], state, held
