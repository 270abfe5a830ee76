"""Weights of a memory side by side as the columns of one matrix; a bias is a column."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def columns_of(weights: Sequence[Tensor], vectors: Sequence[int] = ()) -> Tensor:
    """`[..., m, n]` of matrices `[..., m, n_i]`; those at the places `vectors` are `[..., m]`, a column each.

    >>> columns_of((torch.zeros(2, 1), torch.ones(2)), vectors=(1,)).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    wide = [w.unsqueeze(-1) if i in vectors else w for i, w in enumerate(weights)]
    return wide[0] if len(wide) == 1 else torch.cat(wide, -1)


def weights_of(matrix: Tensor, widths: Sequence[int], vectors: Sequence[int] = ()) -> tuple[Tensor, ...]:
    """The weights of `widths` columns each that `columns_of` has put together, with storage of their own.

    >>> [w.tolist() for w in weights_of(torch.eye(2), (1, 1), vectors=(1,))]
    [[[1.0], [0.0]], [0.0, 1.0]]
    """
    parts = matrix.split(tuple(widths), -1)
    return tuple(p.squeeze(-1).clone() if i in vectors else p.clone() for i, p in enumerate(parts))
