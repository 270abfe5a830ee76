"""One pass over the chunks of a memory and what its rules remember, the filter given as kernels.

    u = w - e ((f k^T * seen) u + sum_i fading_i (f Z_i^T)),
    y = (q k^T * read) u + sum_i carried_i (q Z_i^T),
    Z_i <- sum_j total_ij Z_j + u^T (end_i k).

`Z_0` is the memory, the others are what its rules remember.  The backward pass goes the same way once more.
Tensors of tokens stay as they are given, as in `chunk_pass`; what belongs to a state is a tensor of its own,
for rows of many states side by side are too short for the vector units.

Shapes: `N` chunks, `B` batch, `H` heads, `X` = B H, `C` tokens of a chunk, `p` pieces of a token, `r` = C p,
`n` states, keys `K`, values `V`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nldsl.runtime.chunk_buffers import cells, parts
from nldsl.runtime.first_order import first_order
from nldsl.runtime.triangular import unit_lower_inverse

if TYPE_CHECKING:
    from nldsl.runtime.filter_kernels import KernelForm


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


class Instead(Protocol):
    """What computes passes in the place of torch (see `native.filtered`)."""

    def passed(
        self, rows: Rows, more: Sequence[Tensor | None], form: KernelForm | None, state: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """What `filtered_pass` gives, or `None` if torch should; `more`: what `form` makes kernels from.

        Without a form they are `Kernels`; all of `more` begin `[N, X, ..]`.
        """


def filtered_pass(
    rows: Rows, kernels: Kernels, state: Tensor, instead: Instead | None = None
) -> tuple[Tensor, Tensor]:
    """Answers `[B, T, H, V]`, and the states behind the last chunk, `[n, B, H, V, K]` as `state`.

    `instead`: what computes the pass if it takes it.

    >>> one, two = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 2)
    >>> rows = Rows(one, one.unsqueeze(3), one.unsqueeze(3), one)
    >>> kernels = Kernels(0 * one, one, two, two, two, torch.ones(1, 1, 2, 2))
    >>> y, last = filtered_pass(rows, kernels, torch.zeros(2, 1, 1, 1, 1))
    >>> y.item(), last.flatten().tolist()
    (1.0, [1.0, 1.0])
    """
    found = None if instead is None else instead.passed(rows, kernels, None, state)
    if found is not None:
        return found
    given = Given(rows.q, rows.along, rows.add, rows.erase, rows.seen, *kernels)
    y, last = _FilteredPass.apply(*given, state)  # type: ignore[no-untyped-call]
    return y, last


class Given(NamedTuple):
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

    def chunks(self, part: tuple[slice, slice]) -> list[Given]:
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
        return [Given(*row) for row in zip(*columns, strict=True)]


class _Buffers:
    """The memory in which a chunk is worked on, with views of its parts (see `chunk_buffers`).

    Rows `[f; q]`; `spread` are they with their weights for every state, `left` the columns with theirs.
    """

    def __init__(self, like: Given, outer: int) -> None:
        new, (count, reading, size) = like.q.new_empty, like.read.shape
        inner, states = like.q.shape[-1], like.end.shape[-1]
        self.size, self.shape = size, (count, size + reading, inner)
        self.rows, self.rate = new(self.shape), new(count, size, 1)
        self.row_f = self.rows[:, :size].view(like.k.shape)
        self.row_q = self.rows[:, size:].view(like.q.shape)
        self.columns = self.rows[:, :size] if like.f is None else new(count, size, inner)
        self.column = self.columns.view(like.k.shape)
        self.rates = self.rate.view(like.k.shape[:-1])
        weights = new(count, size + reading, states)
        self.of_f, self.of_q, self.weights = weights[:, :size], weights[:, size:], _each(weights)
        self.spread = new(states, count, size + reading, inner).unbind(0)
        self.left = new(states, count, size, inner).unbind(0)
        # Rows that write see nothing of the last row that reads.
        self.shown, self.strict = like.q.new_zeros(count, size, size), new(count, size, size)
        self.reads, self.wanted = new(count, reading, size), new(count, size, outer)
        self.later = self.shown[:, 1:]

    def fill(self, one: Given, gram: Tensor | None = None) -> Tensor:
        """Everything of a chunk but the values really added; returns the products of rows and columns."""
        self.row_f.copy_(one.k if one.f is None else one.f)
        self.row_q.copy_(one.q)
        if one.f is not None:
            self.column.copy_(one.k)
        self.rates.copy_(one.e)
        torch.mul(one.fading, self.rate, out=self.of_f)
        self.of_q.copy_(one.carried)
        for spread, left, weight, end in zip(
            self.spread, self.left, self.weights, _each(one.end), strict=True
        ):
            torch.mul(self.rows, weight, out=spread)
            torch.mul(self.columns, end, out=left)
        if one.seen is None:
            self.later.copy_(one.read[:, :-1])
        else:
            self.shown.copy_(one.seen)
        found = torch.bmm(self.rows, self.columns.mT) if gram is None else gram
        torch.mul(found[:, self.size :], one.read, out=self.reads)
        return found


def _each(weights: Tensor) -> tuple[Tensor, ...]:
    """Weights `[X, rows, n]` of every state, `[X, rows, 1]`."""
    found: tuple[Tensor, ...] = weights.split(1, -1)
    return found


def _mixed(states: Tensor, weights: Tensor) -> Tensor:
    """`sum_j weights_ij Z_j` for all i: states `[n, X, V, K]`, weights `[X, n, n]`."""
    made, numbers = torch.empty_like(states), iter(weights.flatten(1)[..., None, None].unbind(1))
    olds = states.unbind(0)
    for new in made.unbind(0):
        torch.mul(olds[0], next(numbers), out=new)
        for old in olds[1:]:
            new.addcmul_(old, next(numbers))
    return made


class _FilteredPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        given, state = Given(*arguments[:11]), arguments[11]
        y = given.q.new_empty(*given.q.shape[:3], state.shape[-2])
        last, kept = torch.empty_like(state, memory_format=torch.contiguous_format), []
        width = given.q.shape[1] // given.read.shape[0]
        for part in parts(given.q, given.read.shape[-1]):
            ones, now = given.chunks(part), state[:, *part].flatten(1, 2)
            buffers = _Buffers(ones[0], y.shape[-1])
            for one, answer in zip(ones, cells(y, part, width), strict=True):
                gram, old = buffers.fill(one), now
                now, *found = _forward(one, gram, now, buffers, answer)
                kept += [old, gram, *found]
            last[:, *part] = now.view(last[:, *part].shape)
        ctx.save_for_backward(*given, *kept)
        return y, last

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        tensors, (dy, d_state) = ctx.saved_tensors, grads
        given, saved = Given(*tensors[:11]), tensors[11:]
        made = Given(*(None if x is None else torch.empty_like(x) for x in given))  # type: ignore[arg-type]
        d_first, start = torch.empty_like(d_state, memory_format=torch.contiguous_format), 0
        width = given.q.shape[1] // given.read.shape[0]
        for part in parts(given.q, given.read.shape[-1]):
            ones, flow = given.chunks(part), d_state[:, *part].flatten(1, 2)
            buffers = _BackBuffers(ones[0], dy.shape[-1])
            rows = zip(ones, cells(dy, part, width), made.chunks(part), strict=True)
            for n, (one, answer, flows) in reversed(list(enumerate(rows))):
                own = saved[start + 4 * n : start + 4 * n + 4]
                buffers.fill(one, own[1])
                flow = _backward(one, own, answer, flow, buffers, flows)
            d_first[:, *part] = flow.view(d_first[:, *part].shape)
            start += 4 * len(ones)
        return (*made, d_first)


def _forward(
    one: Given, gram: Tensor, old: Tensor, buffers: _Buffers, answer: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the answers of one chunk; return the states `[n, X, V, K]` behind it, `u` and the inverse."""
    size, met = buffers.size, torch.bmm(buffers.spread[0], old[0].mT)
    for spread, state in zip(buffers.spread[1:], old[1:], strict=True):
        met.baddbmm_(spread, state.mT)
    inverse = unit_lower_inverse(
        torch.mul(gram[:, :size], buffers.shown, out=buffers.strict).mul_(buffers.rate)
    )
    torch.sub(one.w, met[:, :size].view(one.w.shape), out=buffers.wanted.view(one.w.shape))
    added = torch.bmm(inverse, buffers.wanted)
    answer.copy_(torch.baddbmm(met[:, size:], buffers.reads, added).view(answer.shape))
    new = _mixed(old, one.total)
    for state, left in zip(new, buffers.left, strict=True):
        state.baddbmm_(added.mT, left)
    return new, added, inverse


class _BackBuffers(_Buffers):
    """With the gradients of all of them."""

    def __init__(self, like: Given, outer: int) -> None:
        super().__init__(like, outer)
        (count, rows, inner), size, new = self.shape, self.size, self.rows.new_empty
        self.d_seen, self.d_rows, self.d_gram = (
            new(count, rows, outer),
            new(self.shape),
            new(count, rows, size),
        )
        self.d_written, self.d_read = self.d_seen[:, :size], self.d_seen[:, size:]
        self.d_answer = self.d_read.view(*like.q.shape[:-1], outer)
        self.d_columns = new(count, size, inner)
        self.d_f, self.d_q = (
            self.d_rows[:, :size].view(like.k.shape),
            self.d_rows[:, size:].view(like.q.shape),
        )
        self.d_k = self.d_columns.view(like.k.shape)
        self.d_spread = tuple(map(torch.empty_like, self.spread))
        self.d_left = tuple(map(torch.empty_like, self.left))
        self.met = new(count, rows, len(self.spread))
        self.met_f, self.met_q, self.mets = self.met[:, :size], self.met[:, size:], _each(self.met)


def _backward(
    one: Given, kept: tuple[Tensor, ...], dy: Tensor, d_new: Tensor, buffers: _BackBuffers, made: Given
) -> Tensor:
    """Fill the gradients of one chunk; return that of the states in front of it."""
    (old, gram, added, inverse), at = kept, buffers
    at.d_answer.copy_(dy)
    d_added, olds, flows = torch.bmm(at.reads.mT, at.d_read), old.unbind(0), d_new.unbind(0)
    for left, flow in zip(at.left, flows, strict=True):
        d_added.baddbmm_(left, flow.mT)
    d_wanted = torch.bmm(inverse.mT, d_added)
    made.w.copy_(d_wanted.view(made.w.shape))
    torch.neg(d_wanted, out=at.d_written)
    torch.bmm(at.d_seen, added.mT, out=at.d_gram)
    torch.bmm(d_new.flatten(2).transpose(0, 1), old.flatten(2).permute(1, 2, 0), out=made.total)
    d_old, d_seen = _mixed(d_new, one.total.mT), at.d_seen.mT
    for i, flow in enumerate(d_old.unbind(0)):
        torch.bmm(at.d_seen, olds[i], out=at.d_spread[i])
        torch.bmm(added, flows[i], out=at.d_left[i])
        flow.baddbmm_(d_seen, at.spread[i])
    _weighed(at.d_spread, at.weights, at.d_rows)
    _weighed(at.d_left, _each(one.end), at.d_columns)
    _to_kernels(one, gram, at, made)
    at.d_rows.baddbmm_(at.d_gram, at.columns)
    at.d_columns.baddbmm_(at.d_gram.mT, at.rows)
    made.q.copy_(at.d_q)
    if made.f is None:
        torch.add(at.d_k, at.d_f, out=made.k)
    else:
        made.k.copy_(at.d_k)
        made.f.copy_(at.d_f)
    return d_old


def _weighed(parts: tuple[Tensor, ...], weights: tuple[Tensor, ...], out: Tensor) -> None:
    """The sum over the states of `[X, rows, K]` with weights `[X, rows, 1]`."""
    torch.mul(parts[0], weights[0], out=out)
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        out.addcmul_(part, weight)


def _to_kernels(one: Given, gram: Tensor, at: _BackBuffers, made: Given) -> None:
    """Gradients of the kernels and of the rate; `d_gram` becomes that of products without weights."""
    size = at.size
    for x, met in zip(at.d_spread, at.mets, strict=True):
        torch.sum(x.mul_(at.rows), -1, keepdim=True, out=met)
    for x, end in zip(at.d_left, _each(made.end), strict=True):
        torch.sum(x.mul_(at.columns), -1, keepdim=True, out=end)
    made.carried.copy_(at.met_q)
    torch.mul(at.met_f, at.rate, out=made.fading)
    torch.mul(gram[:, size:], at.d_gram[:, size:], out=made.read)
    of_rate = torch.mul(gram[:, :size], at.d_gram[:, :size], out=at.strict).tril_(-1)
    d_rate = (of_rate * at.shown).sum(-1).add_(at.met_f.mul_(one.fading).sum(-1))
    made.e.copy_(d_rate.view(made.e.shape))
    if made.seen is None:
        made.read[:, :-1] += of_rate.mul_(at.rate)[:, 1:]
    else:
        torch.mul(of_rate, at.rate, out=made.seen)
    at.d_gram[:, :size].mul_(at.shown).mul_(at.rate).tril_(-1)
    at.d_gram[:, size:].mul_(one.read)
