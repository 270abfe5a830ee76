"""One pass over the chunks of a matrix memory: scores, triangular solve, reads and state, all in cache.

For gates whose products inside a chunk stay in the range of the numbers, one anchor serves the whole chunk
(see `gram`): rows `f` (what is erased) and `q` (what is read) are scaled by `exp(g - m)`, columns by
`exp(m - g)`, the state by `exp(m)`, and what remains are products:

    A = rows columns^T, Z = rows M_0^T, (I + A_fc) u = w - Z_f - A_fk v, y = Z_q + A_q [u; v],
    M_1 = M_0 exp(g_C) + [u; v]^T columns exp(g_C - m).

The backward pass goes the same way once more.  Every value depends on differences of `g` only, so with total
gradients `dg = rows * d_rows - columns * d_columns`, and `dg_C` gains `sum(dM_1 * M_1)`.

Shapes: `N` chunks, `X` = batch x heads, `C` tokens, `K` along which is written, `V` the other side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order
from nldsl.runtime.gram import limit_of
from nldsl.runtime.triangular import unit_lower_inverse

CACHE = 2**18
"""Bytes of scores that are worked on together on a CPU."""


class Reading(NamedTuple):
    """Where rows stand: `early` in front of the token's gate, `strict` in front of its write."""

    early: bool
    strict: bool


class Pass(NamedTuple):
    """Answers `[N, X, C, V]`, values really added, states in front of every chunk, and behind the last."""

    y: Tensor
    added: Tensor
    states: Tensor
    last: Tensor


def fits(sums: Tensor) -> bool:
    """Whether one anchor serves every chunk of `sums [..., C, K]`; never known under `torch.compile`."""
    if torch.compiler.is_compiling():
        return False
    held = sums.detach()
    middle = held[..., held.shape[-2] // 2, :].unsqueeze(-2)
    # The state in front of the chunk is scaled by the anchor itself.
    farthest = torch.maximum((held - middle).abs().amax(), middle.abs().amax())
    return bool(farthest <= limit_of(sums.dtype))


def chunk_pass(
    q: Tensor,
    erase: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    write: tuple[Tensor, Tensor] | None,
    sums: Tensor | None,
    state: Tensor,
    *,
    reads: Reading,
    early_erase: bool,
) -> Pass:
    """Read with `q [N, X, C, K]`; `erase` is `(f, e, c, w)`, `write` is `(k, v)`, at least one of them.

    `M <- a M + (w - e (M f)) c^T + v k^T`, `e [N, X, C]`; `sums [N, X, C, K]` or `[N, X, C, 1]` are running
    sums of log decays inside each chunk, `state [X, V, K]`.

    >>> one, none = torch.ones(1, 1, 2, 1), torch.zeros(1, 1, 1)
    >>> made = chunk_pass(one, None, (one, one), None, none, reads=Reading(False, False), early_erase=False)
    >>> made.y.flatten().tolist(), made.last.item()
    ([1.0, 2.0], 2.0)
    """
    f, e, c, w = erase if erase is not None else (None,) * 4
    k, v = write if write is not None else (None,) * 2
    arguments = (q, f, e, c, w, k, v, sums, state, reads, early_erase)
    return Pass(*_ChunkPass.apply(*arguments))  # type: ignore[no-untyped-call]


class _Chunk(NamedTuple):
    """One chunk of some heads, everything scaled around its anchor."""

    rows: Tensor
    columns: Tensor
    row_scale: list[Tensor | None]
    column_scale: Tensor | None
    anchor: Tensor | None
    end: Tensor | None
    values: Tensor | None

    def state(self, state: Tensor) -> Tensor:
        """The state as rows meet it."""
        return state if self.anchor is None else state * self.anchor

    def scores(self, hidden: Tensor) -> Tensor:
        """`rows columns^T` where a row sees a column."""
        return torch.bmm(self.rows, self.columns.mT).masked_fill_(hidden, 0.0)


class _Given(NamedTuple):
    """The tensors of the call that stand in rows and columns; any of the last six may be missing."""

    q: Tensor
    f: Tensor | None
    e: Tensor | None
    c: Tensor | None
    w: Tensor | None
    k: Tensor | None
    v: Tensor | None
    sums: Tensor | None

    def at(self, n: int, part: slice) -> _Given:
        """One chunk of some heads."""
        return _Given(*(None if x is None else x[n, part] for x in self))  # type: ignore[arg-type]


def _scaled(given: _Given, reads: Reading, early_erase: bool) -> _Chunk:
    """Rows `[f; q]` and columns `[c; k]` around the anchor."""
    row_scale: list[Tensor | None] = [None, None]
    column_scale = anchor = end = None
    if given.sums is not None:
        middle = given.sums[:, given.sums.shape[1] // 2, :].unsqueeze(1)
        late = (given.sums - middle).exp_()
        column_scale, anchor, end = late.reciprocal(), middle.exp(), late[:, -1:]
        early = None
        if early_erase or reads.early:
            early = torch.cat([anchor.reciprocal(), late[:, :-1]], 1)
        row_scale = [early if early_erase else late, early if reads.early else late]
    rows: list[Tensor] = []
    if given.f is not None and given.e is not None:
        rows.append(_times(given.f * given.e.unsqueeze(-1), row_scale[0]))
    rows.append(_times(given.q, row_scale[1]))
    columns = [_times(x, column_scale) for x in (given.c, given.k) if x is not None]
    return _Chunk(_joined(rows), _joined(columns), row_scale, column_scale, anchor, end, given.v)


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _hidden(given: _Given, reads: Reading) -> Tensor:
    """Which columns a row does not see, `[rows, columns]`."""
    size = given.q.shape[2]
    upper = torch.ones(size, size, dtype=torch.bool, device=given.q.device)
    rows = [upper.triu(0)] if given.f is not None else []
    rows.append(upper.triu(0 if reads.strict else 1))
    columns = (given.c is not None) + (given.k is not None)
    return torch.cat([torch.cat([row] * columns, 1) for row in rows], 0)


def _parts(given: _Given) -> Iterator[slice]:
    """Heads that are worked on together."""
    count, size = given.q.shape[1], given.q.shape[2] ** 2 * given.q.element_size()
    width = max(1, CACHE // max(1, size)) if given.q.device.type == "cpu" else max(1, count)
    for start in range(0, count, width):
        yield slice(start, start + width)


class _ChunkPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        given, (state, reads, early) = _Given(*arguments[:8]), arguments[8:]
        count, heads, size, _ = given.q.shape
        states = state.new_empty(count + 1, *state.shape)
        states[0] = state
        y = given.q.new_empty(*given.q.shape[:3], state.shape[1])
        added = torch.empty_like(y) if given.c is not None else y.new_empty(0)
        inverses = y.new_empty(*((count, heads, size, size) if given.c is not None else (0,)))
        hidden = _hidden(given, reads)
        for part in _parts(given):
            for n in range(count):
                chunk = _scaled(one := given.at(n, part), reads, early)
                old, scores = states[n, part], chunk.scores(hidden)
                seen, values = torch.bmm(chunk.rows, chunk.state(old).mT), chunk.values
                if one.w is not None:
                    wanted = one.w - seen[:, :size]
                    if values is not None:
                        wanted.baddbmm_(scores[:, :size, size:], values, alpha=-1)
                    inverses[n, part] = unit_lower_inverse(scores[:, :size, :size])
                    torch.bmm(inverses[n, part], wanted, out=added[n, part])
                    values = added[n, part] if values is None else torch.cat([added[n, part], values], 1)
                assert values is not None
                torch.baddbmm(seen[:, -size:], scores[:, -size:], values, out=y[n, part])
                _move(chunk, old, torch.bmm(values.mT, chunk.columns), states[n + 1, part])
        ctx.save_for_backward(*given, states, added, inverses)
        ctx.how = reads, early
        ctx.set_materialize_grads(False)
        return y, added, states[:-1], states[-1]

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        dy, d_added, d_states, d_last = grads
        *saved, states, added, inverses = ctx.saved_tensors
        given, (reads, early) = _Given(*saved), ctx.how
        made = _Given(*(None if x is None else torch.empty_like(x) for x in given))  # type: ignore[arg-type]
        dy = (
            torch.zeros_like(given.q[..., :1]).expand(*given.q.shape[:3], states.shape[2])
            if dy is None
            else dy
        )
        hidden, count = _hidden(given, reads), given.q.shape[0]
        d_state = torch.zeros_like(states[0]) if d_last is None else d_last.clone()
        for part in _parts(given):
            flow = d_state[part]
            for n in range(count - 1, -1, -1):
                one = _Saved(
                    given.at(n, part),
                    states[n, part],
                    states[n + 1, part],
                    added[n, part] if given.c is not None else None,
                    inverses[n, part] if given.c is not None else None,
                    None if d_added is None or given.c is None else d_added[n, part],
                )
                flow = _back(one, dy[n, part], flow, (reads, early, hidden), made.at(n, part))
                if d_states is not None:
                    flow += d_states[n, part]
            d_state[part] = flow
        return (*made, d_state, None, None)


def _move(chunk: _Chunk, old: Tensor, written: Tensor, out: Tensor) -> None:
    """The state behind the chunk."""
    if chunk.anchor is None or chunk.end is None:
        torch.add(old, written, out=out)
        return
    torch.mul(old, chunk.anchor * chunk.end, out=out)
    out.addcmul_(written, chunk.end)


class _Saved(NamedTuple):
    given: _Given
    old: Tensor
    new: Tensor
    added: Tensor | None
    inverse: Tensor | None
    d_added: Tensor | None


def _back(one: _Saved, dy: Tensor, d_new: Tensor, how: tuple[Reading, bool, Tensor], made: _Given) -> Tensor:
    """Fill the gradients of one chunk; return that of the state in front of it."""
    (reads, early, hidden), given, size = how, one.given, dy.shape[1]
    chunk = _scaled(given, reads, early)
    scores, state = chunk.scores(hidden), chunk.state(one.old)
    d_end = d_new if chunk.end is None else d_new * chunk.end
    values = _joined([x for x in (one.added, given.v) if x is not None])
    d_values = torch.bmm(chunk.columns, d_end.mT).baddbmm_(scores[:, -size:].mT, dy)
    d_seen = dy
    if one.inverse is not None and made.w is not None:
        d_added = d_values[:, :size] if one.d_added is None else d_values[:, :size] + one.d_added
        torch.bmm(one.inverse.mT, d_added, out=made.w)
        if made.v is not None:
            d_values[:, size:].baddbmm_(scores[:, :size, size:].mT, made.w, alpha=-1)
        d_seen = torch.cat([-made.w, dy], 1)
    if made.v is not None:
        made.v.copy_(d_values[:, -size:])
    d_scores = torch.bmm(d_seen, values.mT).masked_fill_(hidden, 0.0)
    d_rows = torch.bmm(d_seen, state).baddbmm_(d_scores, chunk.columns)
    d_columns = torch.bmm(values, d_end).baddbmm_(d_scores.mT, chunk.rows)
    d_old = torch.bmm(d_seen.mT, chunk.rows)
    if chunk.anchor is not None and chunk.end is not None:
        d_old.mul_(chunk.anchor).addcmul_(d_new, chunk.anchor * chunk.end)
    else:
        d_old += d_new
    _unscale(chunk, given, d_rows, d_columns, made)
    if made.sums is not None:
        _to_sums(one, d_new, how, made)
    return d_old


def _unscale(chunk: _Chunk, given: _Given, d_rows: Tensor, d_columns: Tensor, made: _Given) -> None:
    """From scaled rows and columns to those that were given."""
    size = given.q.shape[1]
    torch.mul(d_rows[:, -size:], 1.0 if chunk.row_scale[1] is None else chunk.row_scale[1], out=made.q)
    if given.f is not None and given.e is not None and made.f is not None and made.e is not None:
        first = _times(d_rows[:, :size], chunk.row_scale[0])
        torch.linalg.vecdot(first, given.f, out=made.e)
        torch.mul(first, given.e.unsqueeze(-1), out=made.f)
    factor = 1.0 if chunk.column_scale is None else chunk.column_scale
    if made.c is not None:
        torch.mul(d_columns[:, :size], factor, out=made.c)
    if made.k is not None:
        torch.mul(d_columns[:, -size:], factor, out=made.k)


def _to_sums(one: _Saved, d_new: Tensor, how: tuple[Reading, bool, Tensor], made: _Given) -> None:
    """`dg` of the rows and columns, moved up where a row stands in front of the gate."""
    reads, early, _ = how
    given = one.given
    total, earlier = torch.zeros_like(given.q), torch.zeros_like(given.q)
    for x, dx, target in (
        (given.q, made.q, earlier if reads.early else total),
        (given.f, made.f, earlier if early else total),
    ):
        if x is not None and dx is not None:
            target.addcmul_(x, dx)
    for x, dx in ((given.c, made.c), (given.k, made.k)):
        if x is not None and dx is not None:
            total.addcmul_(x, dx, value=-1.0)
    if reads.early or early:
        total[:, :-1] += earlier[:, 1:]
    total[:, -1] += torch.linalg.vecdot(d_new, one.new, dim=1)
    assert made.sums is not None
    made.sums.copy_(total if made.sums.shape[-1] == total.shape[-1] else total.sum(-1, keepdim=True))
