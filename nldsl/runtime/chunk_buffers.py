"""The memory in which `chunk_pass` works on a chunk, with views of its parts made once for all chunks.

A chunk is a hundred operations of some microseconds on numbers that are in the cache: a view or a new tensor
for each of them would take as long as they do.  Shapes as in `chunk_pass`; `b`, `h` are the samples and heads
that are worked on together, `X` = b h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.chunk_sums import Width
from nldsl.runtime.chunk_widths import widest

CACHE = 2**18
"""Bytes of the scores of one row with one column that are worked on together on a CPU."""


class Reading(NamedTuple):
    """Where rows stand: `early` in front of the token's gate, `strict` in front of its write."""

    early: bool
    strict: bool


class How(NamedTuple):
    """What is not a tensor of a call; `early_erase`: what is erased stands in front of the token's gate."""

    reads: Reading
    early_erase: bool
    width: Width


class Given(NamedTuple):
    """The tensors of a call that stand in rows and columns; any of the last seven may be missing."""

    q: Tensor
    f: Tensor | None
    e: Tensor | None
    c: Tensor | None
    w: Tensor | None
    k: Tensor | None
    v: Tensor | None
    sums: Tensor | None

    def chunks(self, part: tuple[slice, slice], width: Width) -> list[Given]:
        """Views `[b, h, C, ...]` of the chunks of some heads of some samples."""
        missing = (None,) * len(cells(self.q, part, width))
        columns = (missing if x is None else cells(x, part, width) for x in self)
        return [Given(*row) for row in zip(*columns, strict=True)]


def cells(x: Tensor, part: tuple[slice, slice], width: Width) -> tuple[Tensor, ...]:
    """Views `[b, h, C, ...]` of `x [B, T, H, ...]`.

    >>> [tuple(x.shape) for x in cells(torch.ones(1, 5, 2), (slice(0, 1), slice(1, 2)), 3)]
    [(1, 1, 3), (1, 1, 2)]
    """
    sizes = width if isinstance(width, int) else list(width)
    found: tuple[Tensor, ...] = x[part[0], :, part[1]].transpose(1, 2).split(sizes, 2)
    return found


def parts(q: Tensor, width: Width) -> Iterator[tuple[slice, slice]]:
    """Samples and heads that are worked on together."""
    batch, _, heads, _ = q.shape
    count = batch * heads
    if q.device.type == "cpu":
        count = max(1, CACHE // (widest(width) ** 2 * q.element_size()))
    samples, some = max(1, count // max(1, heads)), min(count, heads)
    for first in range(0, batch, samples):
        for start in range(0, heads, some):
            yield slice(first, first + samples), slice(start, start + some)


class Halves:
    """Room for `[X, n C, width]`: all of it, and its first and last C rows as `[b, h, C, width]`."""

    def __init__(self, like: Tensor, count: int, width: int) -> None:
        batch, heads, size = like.shape[:3]
        self.all = like.new_empty(batch * heads, count * size, width)
        self.begin, self.end = self.all[:, :size], self.all[:, -size:]
        self.first = self.begin.unflatten(0, (batch, heads))
        self.last = self.end.unflatten(0, (batch, heads))


class Scores:
    """Room for the scores `[X, n C, m C]` of rows with columns, zero where a row does not see a column."""

    def __init__(self, rows: Halves, columns: Halves, strict: bool) -> None:
        size, self.rows, self.columns = rows.first.shape[2], rows.all, columns.all.mT
        self.all = rows.all.new_empty(rows.all.shape[0], rows.all.shape[1], columns.all.shape[1])
        self.erased, self.written = self.all[:, :size, :size], self.all[:, :size, size:]
        self.read = self.all[:, -size:]
        self.blocks = []
        for row in range(0, self.all.shape[1], size):
            erases = row + size < self.all.shape[1]
            for column in range(0, self.all.shape[2], size):
                block = self.all[:, row : row + size, column : column + size]
                self.blocks.append((block, -1 if erases or strict else 0))

    def fill(self) -> Tensor:
        """Products where they count; what stands elsewhere may have overflowed."""
        torch.bmm(self.rows, self.columns, out=self.all)
        for block, last in self.blocks:
            block.tril_(last)
        return self.all


class Buffers:
    """Rows `[f; q]` and columns `[c; k]` of a chunk around its anchor, their scores, what columns write.

    `scale [b, h, C + 1, K]` belongs to the places in front of every token and behind the last one.
    """

    def __init__(self, like: Given, how: How, outer: int) -> None:
        self.how, self.size, inner = how, like.q.shape[2], like.q.shape[3]
        self.erases = like.c is not None
        rows, columns = 1 + self.erases, self.erases + (like.k is not None)
        self.rows, self.columns = Halves(like.q, rows, inner), Halves(like.q, columns, inner)
        self.scores = Scores(self.rows, self.columns, how.reads.strict)
        self.values = Halves(like.q, columns, outer)
        self.read_scale = self.erase_scale = self.column_scale = None
        if like.sums is not None:
            self.scale = like.q.new_empty(*like.q.shape[:2], self.size + 1, like.sums.shape[-1])
            early, self.late = self.scale[:, :, :-1], self.scale[:, :, 1:]
            self.front = self.scale[:, :, :1]
            self.read_scale = early if how.reads.early else self.late
            self.erase_scale = early if how.early_erase else self.late
            self.column_scale = torch.empty_like(self.late, memory_format=torch.contiguous_format)

    def fill(self, one: Given) -> None:
        """Everything of a chunk but the values really added."""
        if one.sums is not None:
            middle = one.sums[:, :, self.size // 2 : self.size // 2 + 1]
            torch.sub(one.sums, middle, out=self.late)
            torch.neg(middle, out=self.front)
            self.scale.exp_()
            torch.reciprocal(self.late, out=self.column_scale)
        times(one.q, self.read_scale, self.rows.last)
        if one.f is not None and one.e is not None:
            times(one.f, self.erase_scale, self.rows.first)
            self.rows.first.mul_(one.e)
        if one.c is not None:
            times(one.c, self.column_scale, self.columns.first)
        if one.k is not None:
            times(one.k, self.column_scale, self.columns.last)
        if one.v is not None:
            self.values.last.copy_(one.v)
        self.scores.fill()


class BackBuffers(Buffers):
    """With the gradients of all of them."""

    def __init__(self, like: Given, how: How, outer: int) -> None:
        super().__init__(like, how, outer)
        inner, rows = like.q.shape[3], 1 + self.erases
        columns = self.columns.all.shape[1] // self.size
        self.d_rows, self.d_columns = Halves(like.q, rows, inner), Halves(like.q, columns, inner)
        self.d_seen, self.d_values = Halves(like.q, rows, outer), Halves(like.q, columns, outer)
        self.d_scores = Scores(self.d_seen, self.values, how.reads.strict)
        self.scaled = torch.empty_like(self.d_rows.first)


def times(x: Tensor, factor: Tensor | None, out: Tensor) -> None:
    """`out = x * factor`, all `[b, h, C, ...]`."""
    if factor is None:
        out.copy_(x)
    else:
        torch.mul(x, factor, out=out)
