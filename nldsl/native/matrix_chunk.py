"""One chunk of a matrix memory, both ways, for lanes (see `runtime.chunk_pass` for the equations).

The state is what it is in front of a chunk and behind it; inside it stands at the anchor `m` of the chunk.
Everything depends on differences of running sums only, so `m` is a constant on the way back.

Shapes: tensors of a chunk with `[B, H]` in front: rows `[B, H, C, K]` or `[B, H, C, V]`, rates
`[B, H, C, 1]`, running sums `[B, H, C, K]` or `[B, H, C, 1]`, states `[B, H, V, K]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.chunk_buffers import Given
from nldsl.runtime.triangular import unit_lower_inverse

Tensors = Sequence[Tensor | None]
ROWS = len(Given._fields)
"""Tensors of tokens of a pass."""


class _Scales(NamedTuple):
    """What rows that read, rows that erase and columns are multiplied by; the state in front and behind."""

    read: Tensor
    erase: Tensor
    column: Tensor
    front: Tensor
    behind: Tensor


class MatrixChunk(NamedTuple):
    """The two functions; rows that read or erase stand `early` in front of the gate of their token.

    `same`: what is erased is found where is written, so `f` is `c` too and is given both gradients as one.
    """

    early_read: bool
    early_erase: bool
    strict: bool
    same: bool = False

    def ahead(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """Answers of a chunk, the state behind it, what it adds where it erases, its inverse."""
        one, (state,), lead = _joined(tensors, self.same)
        scales = self._scales(one)
        rows, columns, old = _rows(one, scales), _columns(one, scales), _times(state, scales, "front")
        size = one.q.shape[1]
        scores, seen = torch.bmm(rows, columns.mT), torch.bmm(rows, old.mT)
        added = inverse = None
        if one.w is not None:
            inverse = unit_lower_inverse(scores[:, :size, :size].tril(-1))
            wanted = one.w - seen[:, :size]
            if one.v is not None:
                wanted = torch.baddbmm(wanted, scores[:, :size, size:].tril(-1), one.v, alpha=-1)
            added = torch.bmm(inverse, wanted)
        values = _beside(added, one.v)
        y = torch.baddbmm(seen[:, -size:], self._read(scores, size), values)
        new = _times(torch.baddbmm(old, values.mT, columns), scales, "behind")
        return [None if x is None else x.unflatten(0, lead) for x in (y, new, added, inverse)]

    def behind(self, *tensors: Tensor | None) -> list[Tensor | None]:
        """The gradient of the state in front of a chunk, then those of what was given.

        Behind what was given come the states in front and behind, what was added, the inverse, and the
        gradients of answers and of the state behind.
        """
        one, (state, new, added, inverse, dy, flow), lead = _joined(tensors, self.same)
        scales, size = self._scales(one), one.q.shape[1]
        rows, columns, old = _rows(one, scales), _columns(one, scales), _times(state, scales, "front")
        scores, values, d_new = (
            torch.bmm(rows, columns.mT),
            _beside(added, one.v),
            _times(flow, scales, "behind"),
        )
        d_values = torch.baddbmm(torch.bmm(columns, d_new.mT), self._read(scores, size).mT, dy)
        d_w, d_v, d_seen = None, None if one.v is None else d_values[:, -size:], dy
        flows = self._read(torch.bmm(dy, values.mT), size)
        if inverse is not None:
            d_w = torch.bmm(inverse.mT, d_values[:, :size])
            if d_v is not None:
                d_v = torch.baddbmm(d_v, scores[:, :size, size:].tril(-1).mT, d_w, alpha=-1)
            d_seen = torch.cat([-d_w, dy], 1)
            erased = [x.tril(-1) for x in torch.bmm(d_w, values.mT).neg().split(size, 2)]
            flows = torch.cat([torch.cat(erased, 2), flows], 1)
        d_rows = torch.baddbmm(torch.bmm(d_seen, old), flows, columns)
        d_columns = torch.baddbmm(torch.bmm(values, d_new), flows.mT, rows)
        d_state = _times(torch.baddbmm(d_new, d_seen.mT, rows), scales, "front")
        d_sums = None
        if one.sums is not None:
            d_sums = self._to_sums(one, d_rows * rows, d_columns * columns, flow * new)
        made = self._unscaled(one, scales, d_rows, d_columns)
        found = [d_state, *made._replace(w=d_w, v=d_v, sums=d_sums)]
        return [None if x is None else x.unflatten(0, lead) for x in found]

    def _read(self, scores: Tensor, size: int) -> Tensor:
        """Scores of the rows that read, where they count."""
        last = -1 if self.strict else 0
        blocks = [x.tril(last) for x in scores[:, -size:].split(size, 2)]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 2)

    def _scales(self, one: Given) -> _Scales | None:
        if one.sums is None:
            return None
        sums, size = one.sums, one.q.shape[1]
        middle = sums[:, size // 2 : size // 2 + 1]
        late = (sums - middle).exp()
        early = torch.cat([(-middle).exp(), late[:, :-1]], 1)
        read, erase = (early if first else late for first in (self.early_read, self.early_erase))
        return _Scales(read, erase, (middle - sums).exp(), middle.exp(), late[:, -1:])

    def _to_sums(self, one: Given, rows: Tensor, columns: Tensor, ends: Tensor) -> Tensor:
        """`dg` of rows and columns, moved up where a row stands in front of its gate."""
        size = one.q.shape[1]
        total = -columns[:, :size] if columns.shape[1] == size else -(columns[:, :size] + columns[:, size:])
        groups = [(rows[:, -size:], self.early_read)]
        groups += [(rows[:, :size], self.early_erase)] if rows.shape[1] > size else []
        for row, early in groups:
            total = total + (torch.cat([row[:, 1:], torch.zeros_like(row[:, :1])], 1) if early else row)
        at_end = ends.sum(1, keepdim=True)
        assert one.sums is not None
        if one.sums.shape[-1] < total.shape[-1]:
            total, at_end = total.sum(-1, keepdim=True), at_end.sum(-1, keepdim=True)
        return torch.cat([total[:, :-1], total[:, -1:] + at_end], 1)

    def _unscaled(self, one: Given, scales: _Scales | None, d_rows: Tensor, d_columns: Tensor) -> Given:
        """From scaled rows and columns to those that were given."""
        size = one.q.shape[1]
        d_q, d_f = d_rows[:, -size:], d_rows[:, :size]
        if scales is not None:
            d_q, d_f, d_columns = d_q * scales.read, d_f * scales.erase, _each(d_columns, scales.column, size)
        erased: tuple[Tensor | None, Tensor | None] = (None, None)
        if one.f is not None and one.e is not None:
            erased = d_f * one.e, (d_f * one.f).sum(-1, keepdim=True)
        d_c = None if one.c is None else d_columns[:, :size]
        if self.same and erased[0] is not None and d_c is not None:
            erased, d_c = (erased[0] + d_c, erased[1]), None
        return Given(
            d_q,
            *erased,
            d_c,
            None,
            None if one.k is None else d_columns[:, -size:],
            None,
            None,
        )


def _joined(tensors: Tensors, same: bool) -> tuple[Given, list[Tensor], tuple[int, int]]:
    """What was given and the rest with lanes as one axis, and the lanes."""
    found = [None if x is None else x.flatten(0, 1) for x in tensors]
    lead = next(x for x in tensors if x is not None).shape[:2]
    given = Given(*found[:ROWS])  # type: ignore[arg-type]
    given = given._replace(c=given.f) if same else given
    return given, found[ROWS:], lead  # type: ignore[return-value]


def _rows(one: Given, scales: _Scales | None) -> Tensor:
    """Those that erase, with their rates, above those that read."""
    q = one.q if scales is None else one.q * scales.read
    if one.f is None or one.e is None:
        return q
    f = one.f * one.e if scales is None else one.f * (scales.erase * one.e)
    return torch.cat([f, q], 1)


def _columns(one: Given, scales: _Scales | None) -> Tensor:
    columns = _beside(one.c, one.k)
    return columns if scales is None else _each(columns, scales.column, one.q.shape[1])


def _each(x: Tensor, scale: Tensor, size: int) -> Tensor:
    """`x` times a scale for every block of `size` rows."""
    return x * scale if x.shape[1] == size else x * torch.cat([scale, scale], 1)


def _beside(*parts: Tensor | None) -> Tensor:
    known = [x for x in parts if x is not None]
    return known[0] if len(known) == 1 else torch.cat(known, 1)


def _times(state: Tensor, scales: _Scales | None, at: str) -> Tensor:
    found: Tensor = state if scales is None else state * getattr(scales, at)
    return found
