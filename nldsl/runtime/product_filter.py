"""Gates per channel of which no logarithm is known: any sign, zero too, by products only.

Blocks are halved down to single tokens; what the second half sees of the first is the product of the gates in
between, taken as the product up to the border and the one behind it.  Nothing is divided, no logarithm taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.runtime.filters import Places


class ProductFilter:
    """`gates [X, C, S, K]`, `C` a power of two; see `filters.Filter`."""

    def __init__(self, gates: Tensor) -> None:
        self.width, self.gates = gates.shape[1], gates
        self.token = gates.prod(2)
        ones = torch.ones_like(gates[:, :, :1])
        self.above = torch.cat([ones, gates.cumprod(2)], 2)
        self.below = torch.cat([gates.flip(2).cumprod(2).flip(2), ones], 2)
        self.total = self.token.prod(1, keepdim=True)

    def gram(self, rows: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        rows, columns = rows.unflatten(1, (self.width, -1)), columns.unflatten(1, (self.width, -1))
        earlier = _gram(rows * _pick(self.above, at), columns * _pick(self.below, of), self.token)
        own = (rows.unsqueeze(3) * columns.unsqueeze(2) * self._between(at, of)).sum(-1)
        # [X, C, n, m] onto the diagonal of [X, C, n, C, m].
        placed = torch.diag_embed(own.movedim(1, -1)).permute(0, 3, 1, 4, 2)
        return earlier + placed.reshape(earlier.shape)

    def spread(self, scores: Tensor, at: Places, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        n, m = len(at), len(of)
        columns = columns.unflatten(1, (self.width, m))
        earlier = _spread(scores, columns * _pick(self.below, of), self.token, n) * _pick(self.above, at)
        own = scores.view(-1, self.width, n, self.width, m).diagonal(dim1=1, dim2=3).movedim(-1, 1)
        inside = (own.unsqueeze(-1) * self._between(at, of) * columns.unsqueeze(2)).sum(3)
        return (earlier + inside).flatten(1, 2)

    def carried(self, rows: Tensor, at: Places) -> Tensor:
        """See `Filter`."""
        return rows * (_before(self.token).unsqueeze(2) * _pick(self.above, at)).flatten(1, 2)

    met = carried

    def ended(self, columns: Tensor, of: Places) -> Tensor:
        """See `Filter`."""
        return columns * (_behind(self.token).unsqueeze(2) * _pick(self.below, of)).flatten(1, 2)

    def _between(self, at: Places, of: Places) -> Tensor:
        """Products of the gates between places of one token, `[X, C, n, m, K]`; zero where not seen."""
        table = []
        for row in at:
            for column in of:
                part = self.gates[:, :, column.gates : row.gates].prod(2)
                table.append(part if column.step < row.step else torch.zeros_like(part))
        between: Tensor = torch.stack(table, 2).unflatten(2, (len(at), len(of)))
        return between


def _pick(stages: Tensor, places: Places) -> Tensor:
    return torch.stack([stages[:, :, p.gates] for p in places], 2)


def _before(token: Tensor) -> Tensor:
    """The product of all earlier gates, along the second last axis."""
    return torch.cat([torch.ones_like(token[..., :1, :]), token.cumprod(-2)[..., :-1, :]], -2)


def _behind(token: Tensor) -> Tensor:
    """The product of all later gates."""
    later = token.flip(-2).cumprod(-2).flip(-2)
    return torch.cat([later[..., 1:, :], torch.ones_like(token[..., :1, :])], -2)


def _gram(rows: Tensor, columns: Tensor, token: Tensor) -> Tensor:
    """Products over earlier tokens: `rows [..., C, n, K]`, `columns [..., C, m, K]`, `token [..., C, K]`."""
    width, n, m = rows.shape[-3], rows.shape[-2], columns.shape[-2]
    if width == 1:
        return rows.new_zeros(*rows.shape[:-3], n, m)
    half = width // 2
    rows, columns = rows.unflatten(-3, (2, half)), columns.unflatten(-3, (2, half))
    token = token.unflatten(-2, (2, half))
    first, second = token.unbind(-3)
    left = rows[..., 1, :, :, :] * _before(second).unsqueeze(-2)
    right = columns[..., 0, :, :, :] * _behind(first).unsqueeze(-2)
    crossed = left.flatten(-3, -2) @ right.flatten(-3, -2).mT
    upper, lower = _gram(rows, columns, token).unbind(-3)
    top = torch.nn.functional.pad(upper, (0, half * m))
    return torch.cat([top, torch.cat([crossed, lower], -1)], -2)


def _spread(scores: Tensor, columns: Tensor, token: Tensor, n: int) -> Tensor:
    """Sums over earlier tokens, `[..., C, n, K]`: `scores [..., C * n, C * m]`, `columns [..., C, m, K]`."""
    width, m = columns.shape[-3], columns.shape[-2]
    if width == 1:
        return columns.new_zeros(*columns.shape[:-2], n, columns.shape[-1])
    half = width // 2
    first, second = token.unflatten(-2, (2, half)).unbind(-3)
    right = (columns[..., :half, :, :] * _behind(first).unsqueeze(-2)).flatten(-3, -2)
    crossed = (scores[..., half * n :, : half * m] @ right).unflatten(-2, (half, n))
    crossed = crossed * _before(second).unsqueeze(-2)
    own = torch.stack([scores[..., : half * n, : half * m], scores[..., half * n :, half * m :]], -3)
    inner = _spread(own, columns.unflatten(-3, (2, half)), token.unflatten(-2, (2, half)), n)
    upper, lower = inner.unbind(-4)
    return torch.cat([upper, lower + crossed], -3)
