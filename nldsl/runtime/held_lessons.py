"""The lessons in the windows of all tokens of all chunks, for objectives over several tokens (see `lessons`).

Shapes: `B` batch, `T` tokens, `H` heads (1 without), `L'` lessons of all chunks, `C + c - 1` of each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import Lessons
from nldsl.runtime.lessons import last_lessons, with_earlier


class Windows(NamedTuple):
    """Rows of all lessons `[B, L', H, d]`, their weights, and the windows behind the call."""

    key: Tensor
    target: Tensor
    lessons: Lessons
    kept: tuple[Tensor, Tensor, Tensor]


def weighed(grid: ChunkGrid, weight: Tensor) -> Lessons:
    """Weights `[B, T, H, 1]` of the lessons of tokens that have one each.

    >>> grid = ChunkGrid(torch.tensor([0]), None, 2, 1)
    >>> weighed(grid, torch.ones(1, 2, 3, 1)).weight.shape
    torch.Size([1, 3, 2])
    """
    return Lessons(1, grid.fill(weight).squeeze(-1).transpose(1, 2))


def window_lessons(
    grid: ChunkGrid, rows: tuple[Tensor, Tensor, Tensor], kept: tuple[Tensor, Tensor, Tensor], window: int
) -> Windows:
    """Keys, targets, weights `[B, T, H, d]` behind those kept `[B, H, c - 1, d]` (weights `[B, H, c - 1]`).

    >>> grid, rows = ChunkGrid(torch.tensor([0]), None, 2, 1), torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    >>> none = torch.zeros(1, 1, 1, 1)
    >>> found = window_lessons(grid, (rows, rows, rows), (none, none, none[0]), 2)
    >>> found.key.flatten().tolist(), found.lessons.weight.flatten().tolist(), found.kept[0].item()
    ([0.0, 1.0, 1.0, 2.0], [0.0, 1.0, 1.0, 2.0], 2.0)
    """
    key, target, weight = (grid.cut(x, "headed") for x in rows)
    behind = (kept[0], kept[1], kept[2].unsqueeze(-1))
    found: list[tuple[Tensor, ...]] = []
    for *now, valid in zip(key, target, weight, grid.valid, strict=True):
        lessons = [with_earlier(old, new) for old, new in zip(behind, now, strict=True)]
        behind = tuple(last_lessons(x, window - 1, valid) for x in lessons)  # type: ignore[assignment]
        found.append(tuple(lessons))
    keys, targets, weights = (torch.cat(x, 2) for x in zip(*found, strict=True))
    last = (behind[0], behind[1], behind[2].squeeze(-1))
    lessons_of = Lessons(window, weights.squeeze(-1))
    return Windows(keys.transpose(1, 2), targets.transpose(1, 2), lessons_of, last)
