"""One pass over the chunks of a matrix memory: scores, triangular solve, reads and state, all in cache.

For gates whose products inside a chunk stay in the range of the numbers, one anchor serves the whole chunk
(see `gram`): rows `f` (what is erased) and `q` (what is read) are scaled by `exp(g - m)`, columns by
`exp(m - g)`, the state by `exp(m)`, and what remains are products:

    A = rows columns^T, Z = rows M_0^T, (I + A_fc) u = w - Z_f - A_fk v, y = Z_q + A_q [u; v],
    M_1 = M_0 exp(g_C) + [u; v]^T columns exp(g_C - m).

The backward pass goes the same way once more.  Every value depends on differences of `g` only, so with total
gradients `dg = rows * d_rows - columns * d_columns`, and `dg_C` gains `sum(dM_1 * M_1)`.

Tensors stay as they are given, token by token: scaling reads them through views and writes rows and columns
head by head, so nothing is laid out anew, and chunks may differ in width (see `chunk_widths`).

Shapes: `B` batch, `T` tokens, `H` heads, `C` tokens of a chunk, `X` = batch x heads, `K` along which is
written, `V` the other side.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nldsl.runtime.chunk_buffers import BackBuffers, Buffers, Given, How, Reading, cells, parts, times
from nldsl.runtime.chunk_sums import Width
from nldsl.runtime.first_order import first_order
from nldsl.runtime.gram import limit_of
from nldsl.runtime.triangular import unit_lower_inverse

FARTHEST = 1.4
"""Up to this many limits of one exponent no number is lost (the limit is 0.7 of the range)."""


class Instead(Protocol):
    """What computes passes in the place of torch."""

    def passed(self, given: Given, state: Tensor, how: How) -> tuple[Tensor, Tensor] | None:
        """Answers and the last state, or `None` where torch shall do it."""


def chunk_pass(
    q: Tensor,
    erase: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    write: tuple[Tensor, Tensor] | None,
    sums: Tensor | None,
    state: Tensor,
    *,
    reads: Reading,
    early_erase: bool,
    width: Width,
    instead: Instead | None = None,
) -> tuple[Tensor, Tensor]:
    """Answers `[B, T, H, V]` to `q [B, T, H, K]` and the last state, in chunks of `width` tokens.

    `M <- a M + (w - e (M f)) c^T + v k^T` with `erase` = `(f, e, c, w)`, `write` = `(k, v)`, at least one of
    them, `e [B, T, H]`; `sums [B, T, H, K]` or `[B, T, H, 1]` are running sums of log decays inside each
    chunk (`sums_of`), `state [B, H, V, K]`.

    >>> one, none, after = torch.ones(1, 2, 1, 1), torch.zeros(1, 1, 1, 1), Reading(False, False)
    >>> y, last = chunk_pass(one, None, (one, one), None, none, reads=after, early_erase=False, width=2)
    >>> y.flatten().tolist(), last.item()
    ([1.0, 2.0], 2.0)
    """
    f, e, c, w = erase if erase is not None else (None,) * 4
    k, v = write if write is not None else (None,) * 2
    e = None if e is None else e.unsqueeze(-1)
    given, how = Given(q, f, e, c, w, k, v, sums), How(reads, early_erase, width)
    if instead is not None and (made := instead.passed(given, state, how)) is not None:
        return made
    y, last = _ChunkPass.apply(*given, state, how)  # type: ignore[no-untyped-call]
    return y, last


def _factors(ones: list[Given]) -> list[tuple[Tensor, ...]] | None:
    """What the state is multiplied by in front of the first chunk and behind every chunk, each `[X, 1, K]`.

    Each carries it from the anchor of one chunk to that of the next, the last one to the end: in two steps,
    by way of the end of the chunk, where the product of both leaves the range of the numbers.
    """
    sums = [x.sums for x in ones if x.sums is not None]
    if not sums:
        return None
    middles = torch.cat([x[:, :, x.shape[2] // 2].unsqueeze(2) for x in sums], 2)
    ends = torch.cat([x[:, :, -1:] for x in sums], 2) - middles
    none = torch.zeros_like(middles[:, :, :1])
    behind, ahead = torch.cat([none, ends], 2).flatten(0, 1), torch.cat([middles, none], 2).flatten(0, 1)
    whole = behind + ahead
    near = bool(whole.abs().amax() <= FARTHEST * limit_of(whole.dtype))
    steps = (whole,) if near else (behind, ahead)
    return list(zip(*(x.exp_().split(1, 1) for x in steps), strict=True))


class _ChunkPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        given, state, how = Given(*arguments[:8]), arguments[8], arguments[9]
        y = given.q.new_empty(*given.q.shape[:3], state.shape[2])
        last = torch.empty_like(state, memory_format=torch.contiguous_format)
        kept: list[Tensor] = []
        for part in parts(given.q, how.width):
            ones, sized = given.chunks(part, how.width), dict[int, Buffers]()
            factors, now = _factors(ones), state[part].flatten(0, 1)
            for factor in () if factors is None else factors[0]:
                now = now * factor
            for n, (one, answer) in enumerate(zip(ones, cells(y, part, how.width), strict=True)):
                size = one.q.shape[2]
                if size not in sized:
                    sized[size] = Buffers(one, how, state.shape[2])
                kept.append(now)
                now, *found = _forward(one, now, sized[size], answer)
                kept += found
                for factor in () if factors is None else factors[n + 1]:
                    now.mul_(factor)
            kept.append(now)
            last[part] = now.view(last[part].shape)
        ctx.how, ctx.outer = how, state.shape[2]
        ctx.save_for_backward(*given, *kept)
        ctx.set_materialize_grads(False)
        return y, last

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        tensors, how = ctx.saved_tensors, ctx.how
        given, saved = Given(*tensors[:8]), list(tensors[8:])
        dy, d_last = _whole(given, ctx.outer, *grads)
        made = _made(given, ctx.needs_input_grad)
        d_first, each = torch.empty_like(d_last), 1 if given.c is None else 3
        for part in parts(given.q, how.width):
            ones, sized = given.chunks(part, how.width), dict[int, BackBuffers]()
            factors, flow = _factors(ones), d_last[part].flatten(0, 1)
            own, saved = saved[: each * len(ones) + 1], saved[each * len(ones) + 1 :]
            rows = list(zip(ones, cells(dy, part, how.width), made.chunks(part, how.width), strict=True))
            for n, (one, answer, flows) in reversed(list(enumerate(rows))):
                size = one.q.shape[2]
                if size not in sized:
                    sized[size] = BackBuffers(one, how, flow.shape[1])
                kept = _Kept(own[each * n + each], own[each * n], *own[each * n + 1 : each * n + each])
                carried = () if factors is None else factors[n + 1]
                flow = _backward(one, kept, answer, flow, carried, sized[size], flows)
            for factor in () if factors is None else reversed(factors[0]):
                flow = flow * factor
            d_first[part] = flow.view(d_first[part].shape)
        return (*made, d_first, None)


class _Kept(NamedTuple):
    """Of a chunk: the states behind it and in front of it, scaled for their chunks, `u`, the inverse."""

    new: Tensor
    old: Tensor
    added: Tensor | None = None
    inverse: Tensor | None = None


def _whole(given: Given, outer: int, dy: Tensor | None, d_last: Tensor | None) -> tuple[Tensor, Tensor]:
    """Zeros for gradients that did not come."""
    batch, tokens, heads, inner = given.q.shape
    none = given.q.new_zeros(())
    dy = none.expand(batch, tokens, heads, outer) if dy is None else dy
    return dy, none.expand(batch, heads, outer, inner).contiguous() if d_last is None else d_last


def _made(given: Given, wanted: tuple[bool, ...]) -> Given:
    """Room for the gradients; rates and targets are often constants."""
    spared = {i for i, name in enumerate(Given._fields) if name in ("e", "w") and not wanted[i]}
    room = (None if x is None or i in spared else torch.empty_like(x) for i, x in enumerate(given))
    return Given(*room)  # type: ignore[arg-type]


def _forward(one: Given, old: Tensor, buffers: Buffers, answer: Tensor) -> list[Tensor]:
    """Fill the answers of one chunk; return the state behind it, `u` and the inverse."""
    buffers.fill(one)
    scores, values, found = buffers.scores, buffers.values, []
    seen = torch.bmm(buffers.rows.all, old.mT)
    if one.w is not None:
        inverse = unit_lower_inverse(scores.erased)
        wanted = seen.new_empty(seen.shape[0], buffers.size, seen.shape[2])
        torch.sub(one.w, seen[:, : buffers.size].view(one.w.shape), out=wanted.view(one.w.shape))
        if one.v is not None:
            wanted.baddbmm_(scores.written, values.end, alpha=-1)
        added = torch.bmm(inverse, wanted)
        values.begin.copy_(added)
        found = [added, inverse]
    made = torch.baddbmm(seen[:, -buffers.size :], scores.read, values.all)
    answer.copy_(made.view(answer.shape))
    return [torch.bmm(values.all.mT, buffers.columns.all).add_(old), *found]


def _backward(
    one: Given,
    kept: _Kept,
    dy: Tensor,
    d_new: Tensor,
    factors: tuple[Tensor, ...],
    buffers: BackBuffers,
    made: Given,
) -> Tensor:
    """Fill the gradients of one chunk; return that of the state in front of it."""
    buffers.fill(one)
    scores, values, d_seen, d_values = buffers.scores, buffers.values, buffers.d_seen, buffers.d_values
    d_rows, d_columns = buffers.d_rows, buffers.d_columns
    at_end = None if made.sums is None else _at_end(d_new, kept.new, made.sums)
    flow = d_new * factors[-1] if factors else d_new.clone()
    for factor in factors[:-1]:
        flow.mul_(factor)
    d_seen.last.copy_(dy)
    torch.bmm(buffers.columns.all, flow.mT, out=d_values.all)
    d_values.all.baddbmm_(scores.read.mT, d_seen.end)
    if kept.inverse is not None and kept.added is not None:
        values.begin.copy_(kept.added)
        d_wanted = torch.bmm(kept.inverse.mT, d_values.begin)
        torch.neg(d_wanted, out=d_seen.begin)
        if made.w is not None:
            made.w.copy_(d_wanted.view(made.w.shape))
    if made.v is not None and one.w is not None:
        through = torch.bmm(scores.written.mT, d_seen.begin)
        torch.add(d_values.last, through.view(made.v.shape), out=made.v)
    elif made.v is not None:
        made.v.copy_(d_values.last)
    flows = buffers.d_scores.fill()
    torch.bmm(d_seen.all, kept.old, out=d_rows.all)
    d_rows.all.baddbmm_(flows, buffers.columns.all)
    torch.bmm(values.all, flow, out=d_columns.all)
    d_columns.all.baddbmm_(flows.mT, buffers.rows.all)
    flow.baddbmm_(d_seen.all.mT, buffers.rows.all)
    _unscale(one, buffers, made)
    if at_end is not None and made.sums is not None:
        _to_sums(buffers, at_end, made.sums)
    return flow


def _unscale(one: Given, buffers: BackBuffers, made: Given) -> None:
    """From scaled rows and columns to those that were given."""
    times(buffers.d_rows.last, buffers.read_scale, made.q)
    if one.f is not None and one.e is not None and made.f is not None:
        scaled = buffers.scaled
        times(buffers.d_rows.first, buffers.erase_scale, scaled)
        torch.mul(scaled, one.e, out=made.f)
        if made.e is not None:
            torch.sum(scaled.mul_(one.f), -1, keepdim=True, out=made.e)
    if made.c is not None:
        times(buffers.d_columns.first, buffers.column_scale, made.c)
    if made.k is not None:
        times(buffers.d_columns.last, buffers.column_scale, made.k)


def _at_end(d_new: Tensor, new: Tensor, sums: Tensor) -> Tensor:
    """What the last sum of a chunk gains, `[b, h, K]` or `[b, h, 1]`."""
    both = (d_new * new).sum(1) if sums.shape[-1] > 1 else (d_new * new).sum((1, 2)).unsqueeze(-1)
    return both.view(*sums.shape[:2], -1)


def _to_sums(buffers: BackBuffers, at_end: Tensor, made: Tensor) -> None:
    """`dg` of the rows and columns, moved up where a row stands in front of the gate."""
    rows, columns = buffers.d_rows, buffers.d_columns
    rows.all.mul_(buffers.rows.all)
    columns.all.mul_(buffers.columns.all)
    groups = [(rows.last, buffers.how.reads.early)]
    groups += [(rows.first, buffers.how.early_erase)] if buffers.erases else []
    total = columns.first
    if columns.all.shape[1] > buffers.size:
        total = total.add_(columns.last)
    total = total.neg_()
    for row, early in groups:
        if early:
            total[:, :, :-1].add_(row[:, :, 1:])
        else:
            total.add_(row)
    if made.shape[-1] < total.shape[-1]:
        total = total.sum(-1, keepdim=True)
    total[:, :, -1].add_(at_end)
    made.copy_(total)
