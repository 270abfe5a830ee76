"""Matrix memories with a gate per element (Mamba-1): no chunk form exists, a scan over the tokens remains.

Where nothing is erased and one gate decays, `element_scan` has it with its way back.  Else the recurrence is
as written; only the states between pieces of `PIECE` tokens are kept for the backward pass, which computes
each piece again.  Tokens come from one `split` and one `unbind`: a slice of each would make the way back fill
zeros for all tokens at every token.  Shapes as in `matrix_memory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

from nldsl.runtime.chunks import mask_out, stand_in
from nldsl.runtime.element_scan import element_scan
from nldsl.runtime.matrix_chunks import gate_of
from nldsl.runtime.matrix_tokens import (
    Gate,
    Side,
    States,
    Step,
    Write,
    kept,
    one_token,
    spread,
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
    found = _at_once(current, steps, grouped, mask, side)
    answers, current = _in_pieces(current, (steps, grouped), mask, side) if found is None else found
    reads = []
    for (q, _), y in zip(grouped, answers, strict=True):
        y = y if start is None else y + q @ start.mT
        reads.append(stand_in(y.flatten(2, 3), mask))
    last, *rest = _turned(current) if turned else current
    return Scanned(tuple(reads), last if start is None else last + start, tuple(rest))


def _turned(states: States) -> States:
    return tuple(x.mT for x in states)


_Given = tuple[Sequence[Step], Sequence[Query]]


def _at_once(
    states: States, steps: Sequence[Step], queries: Sequence[Query], mask: Tensor | None, side: Side
) -> tuple[list[Tensor], States] | None:
    """All tokens by `element_scan`; `None` where it does not apply."""
    gates = [g for g in map(gate_of, steps) if g is not None]
    writes = [s for s in steps if isinstance(s, Write)]
    if torch.compiler.is_compiling() or side != "key" or len(states) != 1 or tokens_of(steps) < 2:
        return None
    if len(gates) != 1 or len(writes) != 1 or isinstance(steps[-1], Gate) or writes[0].mixing is not None:
        return None
    pieces, given = writes[0].pieces, gates[0].value if gates[0].log is None else gates[0].log
    plain = all(p.seen is None for p in pieces) and all(at == len(steps) for _, at in queries)
    if given is None or not (plain and queries):
        return None
    log = gates[0].log is not None
    along, add = (torch.cat(x, 3) if len(x) > 1 else x[0] for x in zip(*(p[:2] for p in pieces), strict=True))
    gate, asked = spread(given, gates[0].across), torch.cat([q for q, _ in queries], 3)
    if len({x.dtype for x in (states[0], gate, along, add, asked)}) > 1:
        return None
    if mask is not None:
        gate = gate.masked_fill(~mask[..., None, None, None], 0.0 if log else 1.0)
        along, add = mask_out(along, mask), mask_out(add, mask)
    y, last = element_scan(gate, log, along, add, asked, states[0])
    return list(y.split([q.shape[3] for q, _ in queries], 3)), (last,)


def _in_pieces(states: States, given: _Given, mask: Tensor | None, side: Side) -> tuple[list[Tensor], States]:
    """All tokens as written, piece after piece."""
    steps, queries = given
    if not tokens_of(steps):
        return [q.new_zeros(*q.shape[:-1], states[0].shape[-2]) for q, _ in queries], states
    leaves, form = tree_flatten((given, mask))
    count = -(-tokens_of(steps) // PIECE)
    columns = [x.split(PIECE, 1) if isinstance(x, Tensor) else (x,) * count for x in leaves]
    found: list[list[Tensor]] = [[] for _ in queries]
    for parts in zip(*columns, strict=True):
        answers, states = _piece(parts, states, form, side)
        for rows, part in zip(found, answers, strict=True):
            rows.append(part)
    return [torch.cat(rows, 1) for rows in found], states


def _piece(parts: Sequence[Any], states: States, form: TreeSpec, side: Side) -> tuple[list[Tensor], States]:
    """Some tokens, computed again in the backward pass."""
    count = len(states)

    def run(*both: Any) -> tuple[list[Tensor], States]:
        return _tokens(both[:count], both[count:], form, side)

    made: tuple[list[Tensor], States] = checkpoint(
        run, *states, *parts, use_reentrant=False, preserve_rng_state=False
    )
    return made


def _tokens(states: States, leaves: Sequence[Any], form: TreeSpec, side: Side) -> tuple[list[Tensor], States]:
    width = next(x for x in leaves if isinstance(x, Tensor)).shape[1]
    columns = [x.unbind(1) if isinstance(x, Tensor) else (x,) * width for x in leaves]
    answers: list[list[Tensor]] = []
    for token in zip(*columns, strict=True):
        (steps, queries), live = tree_unflatten(list(token), form)
        places = one_token(states, steps, side)
        memories = [places[at][0] for _, at in queries]
        answers.append(
            [
                q @ (memory if side == "value" else memory.mT)
                for (q, _), memory in zip(queries, memories, strict=True)
            ]
        )
        states = kept(None if live is None else live[:, None, None, None], places[-1], states)
    return [torch.stack(rows, 1) for rows in zip(*answers, strict=True)], states
