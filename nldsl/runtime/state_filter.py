"""Several states that mix by numbers: a memory and whatever linear rules keep of its gradients.

    Z_t = A_t Z_{t-1} + b_t u_t,   Z = (M, U_1, ..., U_m),   A_t [n, n], b_t [n],  n = m + 1,

with gates per head, or per channel of the side along which is written (every channel a filter of its own).
A write `j` is seen at `t` through `l_t^T A_t ... A_{j+1} b_j`.  Chunks are folded from single tokens by
doubling: what the second half sees of the first is `(l_t^T A_t ... A_{h+1}) (A_h ... A_{j+1} b_j)`, a sum
over the n states.  Nothing is divided and no logarithm is taken, so zeros, signs and rotations are exact; the
memory alone under gates per channel of any sign is the case of one state.
Shapes as in `filters`, with `K` = 1 where all gates are one number per head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from nldsl.runtime.filters import Places
from nldsl.runtime.once import once


class StateFilter:
    """`steps [X, C, n, n, K]` in the order of a token, `into [X, C, n]`: what a kind of piece adds to each.

    A row's `part` is the state it looks at, that of a column which `into` it has.  See `filters.Filter`.
    """

    def __init__(self, steps: Sequence[Tensor], into: Sequence[Tensor]) -> None:
        self.steps, self.into = steps, into
        self.width, self.count = steps[0].shape[1], steps[0].shape[2]
        self.token = steps[0]
        for step in steps[1:]:
            self.token = product(step, self.token)

    # --- the filter as it is ---------------------------------------------------------------------

    @once
    def _prefixes(self) -> tuple[Tensor, Tensor]:
        """`A_{t-1} ... A_1` for every token `[X, C, n, n, K]`, and that of the whole chunk."""
        rows, _, total, _ = fold(_identity(self.token), None, _whole(self.token), None)
        return rows[:, : self.width], total

    @once
    def _suffixes(self) -> Tensor:
        """`A_C ... A_{t+1}`, transposed."""
        _, columns, _, _ = fold(None, _identity(self.token), _whole(self.token), None)
        assert columns is not None
        return columns[:, : self.width]

    @property
    def total(self) -> Tensor:
        """What is left of the states behind the chunk, `[X, n, n, K]`."""
        return self._prefixes[1]

    def _rows(self, at: Places) -> Tensor:
        """What places see of the states in front of their token, `[X, C, r, n, K]`."""
        found = []
        for place in at:
            seen = _unit(place.part, self.token)
            for step in reversed(self.steps[: place.step]):
                seen = _row_times(seen, step)
            found.append(seen)
        return torch.cat(found, 2)

    def _columns(self, of: Places) -> Tensor:
        """What pieces leave in the states behind their token, `[X, C, s, n, K]`."""
        found = []
        for place in of:
            left = self.into[place.part][:, :, None, :, None]
            for step in self.steps[place.step + 1 :]:
                left = _row_times(left, step.transpose(2, 3))
            found.append(left.expand(*left.shape[:-1], self.token.shape[-1]))
        return torch.cat(found, 2)

    def _own(self, at: Places, of: Places) -> Tensor:
        """What places see of the pieces of their own token, `[X, C, r, s, K]`."""
        table = []
        for row in at:
            for column in of:
                seen = _unit(row.part, self.token)
                for step in reversed(self.steps[column.step + 1 : row.step]):
                    seen = _row_times(seen, step)
                shown = (seen * self.into[column.part][:, :, None, :, None]).sum(3)
                table.append(shown if column.step < row.step else torch.zeros_like(shown))
        found: Tensor = torch.cat(table, 2).unflatten(2, (len(at), len(of)))
        return found

    # --- as numbers, where all gates are one per head --------------------------------------------

    def weights(self, at: Places, of: Places) -> Tensor:
        """`[X, C * r, C * s]`: how much a place sees of every piece."""
        own = self._own(at, of).squeeze(-1)
        _, _, _, scores = _folded(self._rows(at), self._columns(of), self.token, own)
        return scores

    def front(self, at: Places) -> Tensor:
        """What places see of the states in front of the chunk, `[X, C * r, n]`."""
        return self._front(at).squeeze(-1).flatten(1, 2)

    def behind(self, of: Places) -> Tensor:
        """What pieces leave in the states behind the chunk, `[X, C * s, n]`."""
        return self._behind(of).squeeze(-1).flatten(1, 2)

    def _front(self, at: Places) -> Tensor:
        return _row_times(self._rows(at), self._prefixes[0])

    def _behind(self, of: Places) -> Tensor:
        return _row_times(self._columns(of), self._suffixes)

    # --- as products with rows and columns -------------------------------------------------------

    @property
    def _plain(self) -> bool:
        return self.token.shape[-1] == 1

    def gram(self, rows: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        if self._plain:
            return (rows @ columns.mT) * _repeated(self.weights, at, of)
        rows, columns = (x.unflatten(1, (self.width, -1)) for x in (rows, columns))
        own = (rows.unsqueeze(3) * columns.unsqueeze(2) * self._own(at, of)).sum(-1)
        left, right = self._rows(at) * rows.unsqueeze(3), self._columns(of) * columns.unsqueeze(3)
        return _folded(left, right, self.token, own)[3]

    def spread(self, scores: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        if self._plain:
            return (scores * _repeated(self.weights, at, of)) @ columns
        columns = columns.unflatten(1, (self.width, -1))
        own = scores.unflatten(1, (self.width, -1)).unflatten(-1, (self.width, -1))
        own = own.diagonal(dim1=1, dim2=3).movedim(-1, 1).unsqueeze(-1)
        inside = (own * self._own(at, of) * columns.unsqueeze(2)).sum(3)
        right = self._columns(of) * columns.unsqueeze(3)
        found: Tensor = inside + _spread(scores, self._rows(at), right, self.token)
        return found.flatten(1, 2)

    def carried(self, rows: Tensor, at: Places) -> Tensor:
        """See `Filter`; meets the states side by side."""
        return (rows.unsqueeze(-2) * self._front(at).flatten(1, 2)).flatten(-2)

    def met(self, answers: Tensor, at: Places) -> Tensor:
        """See `Filter`."""
        shown: Tensor = answers.unflatten(-1, (self.count, -1)) * self._front(at).flatten(1, 2)
        return shown.sum(-2)

    def ended(self, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`; adds to the states side by side."""
        left: Tensor = columns.unsqueeze(-2) * self._behind(of).flatten(1, 2)
        return left.flatten(-2)


def _repeated(weights: object, at: Places, of: Places) -> Tensor:
    """Places alike have the same weights: computed once."""
    rows, columns = tuple(dict.fromkeys(at)), tuple(dict.fromkeys(of))
    found: Tensor = weights(rows, columns)  # type: ignore[operator]
    if (rows, columns) == (at, of):
        return found
    found = found.unflatten(1, (-1, len(rows))).unflatten(-1, (-1, len(columns)))
    found = found[:, :, [rows.index(p) for p in at]][..., [columns.index(p) for p in of]]
    return found.flatten(3, 4).flatten(1, 2)


def product(left: Tensor, right: Tensor) -> Tensor:
    """`[..., n, n, K]`: a product of matrices for every channel.

    >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).unsqueeze(-1)
    >>> product(turn, turn).squeeze(-1).tolist()
    [[-1.0, 0.0], [0.0, -1.0]]
    """
    if left.shape[-1] == 1:
        return (left.squeeze(-1) @ right.squeeze(-1)).unsqueeze(-1)
    return (left.unsqueeze(-2) * right.unsqueeze(-4)).sum(-3)


def _row_times(rows: Tensor, matrix: Tensor) -> Tensor:
    """`rows [..., r, n, K]` times `matrix [..., n, n, K]`."""
    if rows.shape[-1] == 1 and matrix.shape[-1] == 1:
        return (rows.squeeze(-1) @ matrix.squeeze(-1)).unsqueeze(-1)
    return (rows.unsqueeze(-2) * matrix.unsqueeze(-4)).sum(-3)


def _unit(state: int, token: Tensor) -> Tensor:
    """The row that looks at one state, `[X, C, 1, n, K]`."""
    row = torch.zeros_like(token[:, :, :1])
    row[:, :, :, state] = 1.0
    return row


def _identity(token: Tensor) -> Tensor:
    eye = torch.eye(token.shape[2], dtype=token.dtype, device=token.device)
    whole: Tensor = eye.unsqueeze(-1).expand(*token.shape[:1], _size(token.shape[1]), -1, -1, token.shape[-1])
    return whole


def _size(width: int) -> int:
    """The next power of two."""
    return 1 << (width - 1).bit_length()


def _whole(token: Tensor) -> Tensor:
    """Tokens behind the end leave everything as it is."""
    missing = _size(token.shape[1]) - token.shape[1]
    return token if not missing else torch.cat([token, _identity(token)[:, :missing]], 1)


def _folded(
    rows: Tensor, columns: Tensor, token: Tensor, own: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    """`fold` for any number of tokens."""
    width = token.shape[1]
    missing = _size(width) - width
    if missing:
        rows, columns = (pad(x, (0, 0) * 3 + (0, missing)) for x in (rows, columns))
        own = pad(own, (0, 0, 0, 0, 0, missing))
    first, second, total, scores = fold(rows, columns, _whole(token), own)
    assert scores is not None
    return first, second, total, scores[:, : width * rows.shape[2], : width * columns.shape[2]]


def fold(
    rows: Tensor | None, columns: Tensor | None, token: Tensor, own: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Tokens joined to one chunk, by doubling.

    `rows [X, C, r, n, K]` as they meet the states in front of their token, `columns [X, C, s, n, K]` as they
    are left behind theirs, `token [X, C, n, n, K]`, `own [X, C, r, s]`; `C` is a power of two.  Return rows
    as they meet what is in front of the chunk, columns as they are left behind it, the product of all
    tokens, and all products of rows and columns, `[X, C * r, C * s]`.
    """
    rows = None if rows is None else rows.unsqueeze(2)
    columns = None if columns is None else columns.unsqueeze(2)
    scores = own
    while token.shape[1] > 1:
        t0, t1 = _halves(token)
        if rows is not None and columns is not None and scores is not None:
            late, early = _halves(rows)[1], _halves(columns)[0]
            crossed = _flat(late) @ _flat(early).mT
            s0, s1 = _halves(scores)
            top = pad(s0, (0, crossed.shape[-1]))
            scores = torch.cat([top, torch.cat([crossed, s1], -1)], -2)
        if rows is not None:
            r0, r1 = _halves(rows)
            rows = torch.cat([r0, _row_times(r1, t0.unsqueeze(2))], 2)
        if columns is not None:
            c0, c1 = _halves(columns)
            columns = torch.cat([_row_times(c0, t1.transpose(2, 3).unsqueeze(2)), c1], 2)
        token = product(t1, t0)
    found = (x if x is None else x.squeeze(1) for x in (rows, columns, token, scores))
    return tuple(found)  # type: ignore[return-value]


def _halves(x: Tensor) -> tuple[Tensor, ...]:
    """First and second of every two blocks."""
    halves: tuple[Tensor, ...] = x.unflatten(1, (-1, 2)).unbind(2)
    return halves


def _flat(x: Tensor) -> Tensor:
    """`[X, blocks, w, r, n, K]` as rows `[X, blocks, w * r, n * K]`."""
    return x.flatten(4, 5).flatten(2, 3)


def _spread(scores: Tensor, rows: Tensor, columns: Tensor, token: Tensor) -> Tensor:
    """Sums over earlier tokens, `[X, C, r, K]`, of columns faded and weighed with `scores`; as `fold`."""
    width, r, s = token.shape[1], rows.shape[2], columns.shape[2]
    missing = _size(width) - width
    if missing:
        rows, columns = (pad(x, (0, 0) * 3 + (0, missing)) for x in (rows, columns))
        scores = pad(scores, (0, missing * s, 0, missing * r))
    token, rows, columns = _whole(token), rows.unsqueeze(2), columns.unsqueeze(2)
    found = torch.zeros_like(rows[..., 0, :])
    while token.shape[1] > 1:
        size, pairs = rows.shape[2], token.shape[1] // 2
        blocks = scores.unflatten(1, (pairs, 2, size * r)).unflatten(-1, (pairs, 2, size * s))
        below = blocks[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3).movedim(-1, 1)
        (t0, t1), (r0, r1), (c0, c1) = (_halves(x) for x in (token, rows, columns))
        crossed = (below @ _flat(c0)).unflatten(2, (size, r)).unflatten(-1, rows.shape[-2:])
        f0, f1 = _halves(found)
        found = torch.cat([f0, f1 + (crossed * r1).sum(-2)], 2)
        rows = torch.cat([r0, _row_times(r1, t0.unsqueeze(2))], 2)
        columns = torch.cat([_row_times(c0, t1.transpose(2, 3).unsqueeze(2)), c1], 2)
        token = product(t1, t0)
    answers: Tensor = found.squeeze(1)[:, :width]
    return answers
