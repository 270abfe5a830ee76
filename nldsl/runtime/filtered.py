"""One pass over the chunks of a memory and what its rules remember, the filter given as kernels.

    u = w - e ((f k^T * seen) u + sum_i fading_i (f Z_i^T)),
    y = (q k^T * read) u + sum_i carried_i (q Z_i^T),
    Z_i <- sum_j total_ij Z_j + u^T (end_i k).

`Z_0` is the memory, the others are what its rules remember.  Transposed and below one another, `[n K, V]`,
they meet rows that are weighted for every state, `[rows, n K]`: one product sums over the states.  The backward
pass goes the same way once more.  Tensors of tokens stay as they are given, as in `chunk_pass`.

Shapes: `N` chunks, `B` batch, `H` heads, `X` = B H, `C` tokens of a chunk, `p` pieces of a token, `r` = C p,
`n` states, keys `K`, values `V`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.chunk_buffers import cells, parts
from nldsl.runtime.first_order import first_order
from nldsl.runtime.triangular import unit_lower_inverse


class Kernels(NamedTuple):
    """What is left of writes and of the states at the rows of a chunk, and behind it.

    `seen [N, X, r, r]`, `read [N, X, C, r]` for the rows that write and that read (`seen` `None`: a row that
    writes sees what the row of the token before reads); `fading [N, X, r, n]`, `carried [N, X, C, n]` of the
    states there; `end [N, X, r, n]`, `total [N, X, n, n]`.
    """

    seen: Tensor | None
    read: Tensor
    fading: Tensor
    carried: Tensor
    end: Tensor
    total: Tensor


class Rows(NamedTuple):
    """Tensors of tokens: `q [B, T, H, K]`, the others with an axis `p` behind the heads.

    `seen` `None`: pieces look where they write.  `T` = N C.
    """

    q: Tensor
    along: Tensor
    add: Tensor
    erase: Tensor
    seen: Tensor | None = None


def filtered_pass(rows: Rows, kernels: Kernels, state: Tensor) -> tuple[Tensor, Tensor]:
    """Answers `[B, T, H, V]`, and the states behind the last chunk, `[B, H, n, K, V]` as `state`.

    >>> one, two = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 2)
    >>> rows = Rows(one, one.unsqueeze(3), one.unsqueeze(3), one)
    >>> kernels = Kernels(0 * one, one, two, two, two, torch.ones(1, 1, 2, 2))
    >>> y, last = filtered_pass(rows, kernels, torch.zeros(1, 1, 2, 1, 1))
    >>> y.item(), last.flatten().tolist()
    (1.0, [1.0, 1.0])
    """
    y, last = _FilteredPass.apply(*rows, *kernels, state)  # type: ignore[no-untyped-call]
    return y, last


class _Given(NamedTuple):
    """Rows and kernels; of a chunk the former are `[b, h, C, ..]`, the latter `[X, ..]`."""

    q: Tensor
    k: Tensor
    w: Tensor
    e: Tensor
    f: Tensor | None
    seen: Tensor | None
    read: Tensor
    fading: Tensor
    carried: Tensor
    end: Tensor
    total: Tensor

    def chunks(self, part: tuple[slice, slice]) -> list[_Given]:
        """The chunks of some heads of some samples."""
        count, (batch, tokens, heads) = self.read.shape[0], self.q.shape[:3]
        missing = (None,) * count
        columns: list[tuple[Tensor | None, ...]] = []
        for i, x in enumerate(self):
            if x is None:
                columns.append(missing)
            elif i < 5:
                columns.append(cells(x, part, tokens // count))
            else:
                whole = x.view(count, batch, heads, *x.shape[2:])[:, part[0], part[1]]
                columns.append(whole.flatten(1, 2).unbind(0))
        return [_Given(*row) for row in zip(*columns, strict=True)]


class _Buffers:
    """The memory in which a chunk is worked on, with views of its parts (see `chunk_buffers`).

    Rows `[f; q]`; `spread` are they with their weights for every state, `left` the columns with theirs.
    """

    def __init__(self, like: _Given, outer: int) -> None:
        self.new, self.own, (count, reading, size) = like.q.new_empty, like.f is None, like.read.shape
        self.size, self.lead, inner, states = size, like.k.shape[:-1], like.q.shape[-1], like.end.shape[-1]
        self.shape = (count, size + reading, inner)
        self.rows, self.gram = self.new(self.shape), self.new(count, size + reading, size)
        self.row_f = self.rows[:, :size].view(like.k.shape)
        self.row_q = self.rows[:, size:].view(like.q.shape)
        self.columns = self.rows[:, :size] if self.own else self.new(count, size, inner)
        self.column = self.columns.view(like.k.shape)
        self.rate = self.new(count, size, 1)
        self.weights = self.new(count, size + reading, states)
        self.spread = self.new(count, size + reading, states, inner)
        self.left = self.new(count, size, states, inner)
        # Rows that write see nothing of the last row that reads.
        self.shown, self.strict = like.q.new_zeros(count, size, size), self.new(count, size, size)
        self.reads = self.new(count, reading, size)

    def fill(self, one: _Given) -> None:
        """Everything of a chunk but the values really added."""
        size = self.size
        self.row_f.copy_(one.k if one.f is None else one.f)
        self.row_q.copy_(one.q)
        if not self.own:
            self.column.copy_(one.k)
        self.rate.view(self.lead).copy_(one.e)
        torch.mul(one.fading, self.rate, out=self.weights[:, :size])
        self.weights[:, size:].copy_(one.carried)
        torch.mul(self.rows.unsqueeze(2), self.weights.unsqueeze(-1), out=self.spread)
        torch.mul(self.columns.unsqueeze(2), one.end.unsqueeze(-1), out=self.left)
        torch.bmm(self.rows, self.columns.mT, out=self.gram)
        if one.seen is None:
            self.shown[:, 1:].copy_(one.read[:, :-1])
        else:
            self.shown.copy_(one.seen)
        torch.mul(self.gram[:, :size], self.shown, out=self.strict).mul_(self.rate)
        torch.mul(self.gram[:, size:], one.read, out=self.reads)


class _FilteredPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        given, state = _Given(*arguments[:11]), arguments[11]
        y = given.q.new_empty(*given.q.shape[:3], state.shape[-1])
        last, kept = torch.empty_like(state, memory_format=torch.contiguous_format), []
        width = given.q.shape[1] // given.read.shape[0]
        for part in parts(given.q, given.read.shape[-1]):
            ones, now = given.chunks(part), state[part].flatten(0, 1)
            buffers = _Buffers(ones[0], y.shape[-1])
            for one, answer in zip(ones, cells(y, part, width), strict=True):
                buffers.fill(one)
                kept.append(now)
                now, *found = _forward(one, now, buffers, answer)
                kept += found
            last[part] = now.view(last[part].shape)
        ctx.save_for_backward(*given, *kept)
        return y, last

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        given, saved, (dy, d_state) = _Given(*ctx.saved_tensors[:11]), ctx.saved_tensors[11:], grads
        made = _Given(*(None if x is None else torch.empty_like(x) for x in given))  # type: ignore[arg-type]
        d_first, start = torch.empty_like(d_state, memory_format=torch.contiguous_format), 0
        width = given.q.shape[1] // given.read.shape[0]
        for part in parts(given.q, given.read.shape[-1]):
            ones, flow = given.chunks(part), d_state[part].flatten(0, 1)
            buffers = _BackBuffers(ones[0], dy.shape[-1])
            rows = zip(ones, cells(dy, part, width), made.chunks(part), strict=True)
            for n, (one, answer, flows) in reversed(list(enumerate(rows))):
                buffers.fill(one)
                own = saved[start + 3 * n : start + 3 * n + 3]
                flow = _backward(one, own, answer, flow, buffers, flows)
            d_first[part] = flow.view(d_first[part].shape)
            start += 3 * len(ones)
        return (*made, d_first)


def _forward(one: _Given, old: Tensor, buffers: _Buffers, answer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the answers of one chunk; return the states `[X, n, K, V]` behind it, `u` and the inverse."""
    size = buffers.size
    met = torch.bmm(buffers.spread.flatten(2), old.flatten(1, 2))
    inverse = unit_lower_inverse(buffers.strict)
    wanted = buffers.new(met.shape[0], size, met.shape[2])
    torch.sub(one.w, met[:, :size].view(one.w.shape), out=wanted.view(one.w.shape))
    added = torch.bmm(inverse, wanted)
    answer.copy_(torch.baddbmm(met[:, size:], buffers.reads, added).view(answer.shape))
    new = torch.bmm(one.total, old.flatten(2)).view(old.shape)
    new.flatten(1, 2).baddbmm_(buffers.left.flatten(2).mT, added)
    return new, added, inverse


class _BackBuffers(_Buffers):
    """With the gradients of all of them."""

    def __init__(self, like: _Given, outer: int) -> None:
        super().__init__(like, outer)
        count, rows, _ = self.shape
        self.d_seen = self.new(count, rows, outer)
        self.d_written = self.d_seen[:, : self.size]
        self.d_read = self.d_seen[:, self.size :]
        self.d_answer = self.d_read.view(*like.q.shape[:-1], outer)
        self.d_gram, self.d_rows = torch.empty_like(self.gram), torch.empty_like(self.rows)
        self.d_columns = self.new(count, self.size, self.shape[2])
        self.d_spread, self.d_left = torch.empty_like(self.spread), torch.empty_like(self.left)


def _backward(
    one: _Given, kept: tuple[Tensor, ...], dy: Tensor, d_new: Tensor, buffers: _BackBuffers, made: _Given
) -> Tensor:
    """Fill the gradients of one chunk; return that of the states in front of it."""
    (old, added, inverse), at, size = kept, buffers, buffers.size
    flat, flow = old.flatten(1, 2), d_new.flatten(1, 2)
    at.d_answer.copy_(dy)
    d_added = torch.bmm(at.left.flatten(2), flow).baddbmm_(at.reads.mT, at.d_read)
    d_wanted = torch.bmm(inverse.mT, d_added)
    made.w.copy_(d_wanted.view(made.w.shape))
    torch.neg(d_wanted, out=at.d_written)
    torch.bmm(at.d_seen, added.mT, out=at.d_gram)
    torch.bmm(at.d_seen, flat.mT, out=at.d_spread.flatten(2))
    torch.bmm(added, flow.mT, out=at.d_left.flatten(2))
    torch.bmm(d_new.flatten(2), old.flatten(2).mT, out=made.total)
    d_old = torch.bmm(one.total.mT, d_new.flatten(2)).view(old.shape)
    d_old.flatten(1, 2).baddbmm_(at.spread.flatten(2).mT, at.d_seen)
    _weighed(at.d_spread, at.weights, at.d_rows)
    _weighed(at.d_left, one.end, at.d_columns)
    _to_kernels(one, at, made)
    at.d_rows.baddbmm_(at.d_gram, at.columns)
    at.d_columns.baddbmm_(at.d_gram.mT, at.rows)
    d_f, d_k = at.d_rows[:, :size].view(made.k.shape), at.d_columns.view(made.k.shape)
    made.q.copy_(at.d_rows[:, size:].view(made.q.shape))
    if made.f is None:
        torch.add(d_k, d_f, out=made.k)
    else:
        made.k.copy_(d_k)
        made.f.copy_(d_f)
    return d_old


def _weighed(answers: Tensor, weights: Tensor, out: Tensor) -> None:
    """The answers `[X, rows, n, K]` of all states with their weights `[X, rows, n]`."""
    first, *rest = answers.unbind(2)
    torch.mul(first, weights[..., :1], out=out)
    for i, answer in enumerate(rest, 1):
        out.addcmul_(answer, weights[..., i : i + 1])


def _to_kernels(one: _Given, at: _BackBuffers, made: _Given) -> None:
    """Gradients of the kernels and of the rate; `d_gram` becomes that of products without weights."""
    size = at.size
    met = at.d_spread.mul_(at.rows.unsqueeze(2)).sum(-1)
    torch.sum(at.d_left.mul_(at.columns.unsqueeze(2)), -1, out=made.end)
    made.carried.copy_(met[:, size:])
    torch.mul(met[:, :size], at.rate, out=made.fading)
    d_rate = met[:, :size].mul_(one.fading).sum(-1)
    at.gram.mul_(at.d_gram)
    of_rate = at.gram[:, :size].tril_(-1)
    d_rate += (of_rate * at.shown).sum(-1)
    made.e.copy_(d_rate.view(made.e.shape))
    of_rate.mul_(at.rate)
    made.read.copy_(at.gram[:, size:])
    if made.seen is None:
        made.read[:, :-1] += of_rate[:, 1:]
    else:
        made.seen.copy_(of_rate)
    at.d_gram[:, :size].mul_(at.shown).mul_(at.rate).tril_(-1)
    at.d_gram[:, size:].mul_(one.read)
