"""What one pass over the chunks of a memory is made of (see `held_pass`).

Shapes: `B` batch, `H` heads, `X` = some samples x heads, `L` slots of all chunks, `C` tokens of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.held_gates import Fading

CACHE = 2**22
"""Bytes of running weights that are worked on together on a CPU."""


class Pulled(NamedTuple):
    """A function of rows and weights, and its way back.

    `forward(*rows, *weights)` gives `outputs` results and what is kept for the way back.
    `back(*d_results, *rows, *weights, *kept)` gives gradients at the rows (`None`: it does not depend
    on them), then for every weight as many pairs `dy, x` as `pairs` says: its gradient is `sum dy^T x`.
    """

    forward: Callable[..., tuple[Tensor, ...]]
    back: Callable[..., tuple[Tensor | None, ...]]
    outputs: int
    pairs: tuple[int, ...]


class Job(NamedTuple):
    """What is no tensor."""

    functions: tuple[Pulled, Pulled]
    widths: list[int]
    ends: list[bool | Tensor]
    queries: int
    weights: int
    filtered: bool
    tracked: bool

    def slices(self) -> list[slice]:
        """Where every chunk lies among the slots."""
        found, start = [], 0
        for width in self.widths:
            found.append(slice(start, start + width))
            start += width
        return found

    def groups(self, tensors: Sequence[Any]) -> Groups:
        """The tensors of a call, or what belongs to them."""
        m, at = self.queries, self.queries + 7
        cuts = [tensors[at + i * self.weights : at + (i + 1) * self.weights] for i in range(3)]
        queries, key, target, fade = tensors[:m], tensors[m], tensors[m + 1], Fading(*tensors[m + 2 : at])
        return Groups(queries, key, target, fade, cuts[0], cuts[1], cuts[2])


class Groups(NamedTuple):
    """Rows `[B, L, H, d]`, factors, weights `[B, H, out, in]`."""

    queries: Sequence[Tensor]
    key: Tensor
    target: Tensor
    fade: Fading
    running: Sequence[Tensor]
    committed: Sequence[Tensor]
    slots: Sequence[Tensor]

    def parts(self) -> Iterator[slice]:
        """Samples that are worked on together."""
        batch, first = self.key.shape[0], self.running[0]
        size = sum(w[:1].numel() for w in (*self.running, *self.slots)) * first.element_size()
        width = max(1, CACHE // max(1, size)) if first.device.type == "cpu" else max(1, batch)
        for start in range(0, max(1, batch), width):
            yield slice(start, min(start + width, batch))


class Numbers(NamedTuple):
    """The factors of one chunk: `[X, 1, 1]`, and `[X, C, 1]` with the sign of a step."""

    keep: Tensor | None
    reach: Tensor
    back: Tensor | None
    left: Tensor | None
    kept: Tensor | None


def numbers_of(job: Job, fade: Fading, part: slice) -> list[Numbers]:
    """Of every chunk."""
    columns: list[Sequence[Tensor | None]] = []
    for x, wide in zip(fade, (False, True, False, False, True), strict=True):
        if x is None:
            columns.append([None] * len(job.widths))
        elif wide:
            columns.append(x[part].flatten(0, 1).neg().unsqueeze(-1).split(job.widths, 1))
        else:
            columns.append(x[part].flatten(0, 1)[..., None, None].unbind(1))
    return [Numbers(*row) for row in zip(*columns, strict=True)]


def piece(x: Tensor, part: slice, at: slice) -> Tensor:
    """`[B, L, H, d]` to rows `[X, C, d]`."""
    return x[part, at].transpose(1, 2).flatten(0, 1)


def put(rows: Tensor | None, into: Tensor, part: slice, at: slice) -> None:
    """Rows `[X, C, d]` into `[B, L, H, d]`; zeros if there are none."""
    place = into[part, at].transpose(1, 2)
    if rows is None:
        place.zero_()
    else:
        place.copy_(rows.view(place.shape))


class Shelf:
    """Tensors that are kept, each once."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.places: dict[int, int] = {}

    def put(self, tensors: Sequence[Tensor]) -> list[int]:
        """Where they lie."""
        for t in tensors:
            if id(t) not in self.places:
                self.places[id(t)] = len(self.tensors)
                self.tensors.append(t)
        return [self.places[id(t)] for t in tensors]


class Chunk(NamedTuple):
    """Of one chunk: queries, key and target; what reads and gradient keep; `x, dy` of every weight; the
    weights in front of it.
    """

    rows: list[Any]
    reads: list[list[Any]]
    kept: list[Any]
    learnt: list[Any]
    committed: list[Any]
    running: list[Any]
    slots: list[Any]

    def mapped(self, function: Callable[[list[Any]], list[Any]]) -> Chunk:
        """Every list through a function."""
        rest = (function(x) for x in self[2:])
        return Chunk(function(self.rows), [function(r) for r in self.reads], *rest)


def lifted(which: Tensor, part: slice, like: Tensor) -> Tensor:
    """`[B]` to `[X, 1, 1]`."""
    flags = which[part]
    return flags.repeat_interleave(like.shape[0] // max(1, flags.shape[0]))[:, None, None]


def chosen(which: bool | Tensor, part: slice, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the samples whose chunk ends, `old` for the others."""
    if isinstance(which, bool):
        return new if which else old
    return torch.where(lifted(which, part, new), new, old)


def sides(x: Tensor, dy: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The narrow rows, which factors are put on, the wide ones, and `matrix` from wide to narrow."""
    return (x, dy, matrix) if x.shape[-1] <= dy.shape[-1] else (dy, x, matrix.mT)
