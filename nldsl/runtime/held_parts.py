"""What one pass over the chunks of a memory is made of (see `held_pass`).

Shapes: `B` batch, `H` heads, `X` = some samples x heads, `L` slots of all chunks, `C` tokens of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.held_gates import Fading, Following

CACHE = 2**22
"""Bytes of running weights that are worked on together on a CPU."""


class Pulled(NamedTuple):
    """A function of rows and weights, and its way back.

    `forward(*rows, *weights)` gives `outputs` results and what is kept for the way back.
    `back(*d_results, *rows, *weights, *kept)` gives gradients at the rows (`None`: it does not depend
    on them), then for every weight as many pairs `dy, x` as `pairs` says: its gradient is `sum dy^T x`, and
    `sum dy` where `x` is `None` (a bias); so for slow parameters, which stand behind the weights.
    """

    forward: Callable[..., tuple[Tensor, ...]]
    back: Callable[..., tuple[Tensor | None, ...]]
    outputs: int
    pairs: tuple[int, ...]


class Counts(NamedTuple):
    """How many tensors of each group a call has."""

    queries: int
    inputs: int
    ways: int
    weights: int
    slots: int
    anchors: int
    shared: int


class Job(NamedTuple):
    """What is no tensor; `live`: which of the ways of a running state every query sees, if it does.

    `earlier`: how many lessons of a chunk are those of earlier tokens.
    """

    functions: tuple[Pulled, Pulled]
    widths: list[int]
    ends: list[bool | Tensor]
    counts: Counts
    biases: tuple[int, ...]
    live: tuple[int, ...]
    earlier: int
    tracked: bool

    @property
    def queries(self) -> int:
        """How many reads there are."""
        return self.counts.queries

    @property
    def weights(self) -> int:
        """How many weights the memory has."""
        return self.counts.weights

    @property
    def filtered(self) -> bool:
        """Whether every weight has a momentum."""
        return bool(self.counts.slots)

    @property
    def lessons(self) -> list[int]:
        """How many every chunk has."""
        return [width + self.earlier for width in self.widths]

    def slices(self) -> list[tuple[slice, slice]]:
        """Where every chunk lies among the slots, and among the lessons."""
        return list(zip(_runs(self.widths), _runs(self.lessons), strict=True))

    def groups(self, tensors: Sequence[Any]) -> Groups:
        """The tensors of a call, or what belongs to them."""
        rest, n = iter(tensors), self.counts

        def take(count: int) -> list[Any]:
            return [next(rest) for _ in range(count)]

        queries, inputs, fade = take(n.queries), take(n.inputs), Fading(*take(5))
        ways = [Following(*take(3)) for _ in range(n.ways)]
        weights = (take(count) for count in (n.weights, n.weights, n.slots, n.anchors, n.shared))
        return Groups(queries, inputs, fade, ways, *weights)

    def pairs(self, learnt: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """`x, dy` of every weight; a bias is the weight of one row whose `x` are its gradients."""
        rest, found = iter(learnt), []
        for i in range(self.weights):
            x = next(rest)
            found.append((x, x.new_ones(*x.shape[:-1], 1) if i in self.biases else next(rest)))
        return found


def _runs(widths: list[int]) -> list[slice]:
    ends = list(accumulate(widths, initial=0))
    return [slice(start, stop) for start, stop in pairwise(ends)]


class Groups(NamedTuple):
    """Rows `[B, L, H, d]` (`inputs`: key, target and more), factors, weights `[B, H, out, in]`, and slow
    parameters of the map.
    """

    queries: Sequence[Tensor]
    inputs: Sequence[Tensor]
    fade: Fading
    ways: Sequence[Following]
    running: Sequence[Tensor]
    committed: Sequence[Tensor]
    slots: Sequence[Tensor]
    anchors: Sequence[Tensor]
    shared: Sequence[Tensor]

    def parts(self) -> Iterator[slice]:
        """Samples that are worked on together."""
        batch, first = self.inputs[0].shape[0], self.running[0]
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
            columns.append(x[part].flatten(0, 1).neg().unsqueeze(-1).split(job.lessons, 1))
        else:
            columns.append(x[part].flatten(0, 1)[..., None, None].unbind(1))
    return [Numbers(*row) for row in zip(*columns, strict=True)]


def ways_of(job: Job, ways: Sequence[Following], part: slice) -> list[list[Following]]:
    """Of every chunk: `kernel [X, C, C]`, `carried` and `lent` `[X, C, 1]` of every way."""
    columns = []
    for way in ways:
        cut = [
            [None] * len(job.widths) if x is None else x[part].flatten(0, 1).split(job.widths, 1) for x in way
        ]
        rows = zip(job.lessons, *cut, strict=True)
        columns.append(
            [
                Following(k[..., :c], *(None if x is None else x.unsqueeze(-1) for x in rest))
                for c, k, *rest in rows
            ]
        )
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in job.widths]


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
    """Of one chunk: queries and inputs; what reads and gradient keep, and what the running weights of reads
    do; `x, dy` of every weight; the weights in front of it.
    """

    rows: list[Any]
    reads: list[list[Any]]
    live: list[list[Any]]
    kept: list[Any]
    learnt: list[Any]
    committed: list[Any]
    running: list[Any]
    slots: list[Any]

    def mapped(self, function: Callable[[list[Any]], list[Any]]) -> Chunk:
        """Every list through a function."""
        reads, live = ([function(r) for r in group] for group in (self.reads, self.live))
        return Chunk(function(self.rows), reads, live, *(function(x) for x in self[3:]))


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
