"""What one pass over the chunks of a memory is made of (see `held_pass`).

Shapes: `B` batch, `H` heads, `X` = some samples x heads, `L` slots of all chunks, `C` tokens of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.held_gates import Fading, Following

CACHE = 2**22
"""Bytes of running weights that are worked on together on a CPU."""


WIDE = (False, True, False, False, True, True)
"""Which factors of `Fading` belong to tokens, not to chunks; of a rule at the commit only the last does."""
TAKEN = (False, True, False, False, True, False)
"""Which factors scale what is taken away."""


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
    gathered: int
    anchors: int
    shared: int


class Kind(NamedTuple):
    """What all chunks have in common; `live`: which way of a running state every query sees, if it does;
    `asked`: which factors of `Fading` ask for a gradient.
    """

    functions: tuple[Pulled, Pulled]
    counts: Counts
    biases: tuple[int, ...]
    live: tuple[int, ...]
    asked: tuple[bool, ...]

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
    def commits(self) -> bool:
        """Whether the rule runs once per chunk, on the sum of its gradients."""
        return bool(self.counts.gathered)

    @property
    def sums(self) -> bool:
        """Whether gradients at the factors of a rule at the commit need the sums of gradients."""
        return any(self.asked[n] for n in (1, 2, 4))

    @property
    def wide(self) -> tuple[bool, ...]:
        """Which factors belong to tokens."""
        return (*[False] * 5, True) if self.commits else WIDE

    def groups(self, tensors: Iterable[Any]) -> Groups:
        """The tensors of a call, or of a chunk, or what belongs to them."""
        rest, n = iter(tensors), self.counts

        def take(count: int) -> list[Any]:
            return [next(rest) for _ in range(count)]

        queries, inputs, fade = take(n.queries), take(n.inputs), Fading(*take(len(Fading._fields)))
        ways = [Following(*take(3)) for _ in range(n.ways)]
        counts = (n.weights, n.weights, n.slots, n.gathered, n.anchors, n.shared)
        weights = (take(count) for count in counts)
        return Groups(queries, inputs, fade, ways, *weights)

    def pairs(self, learnt: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """`x, dy` of every weight; a bias is the weight of one row whose `x` are its gradients."""
        rest, found = iter(learnt), []
        for i in range(self.weights):
            x = next(rest)
            found.append((x, x.new_ones(*x.shape[:-1], 1) if i in self.biases else next(rest)))
        return found


class Job(NamedTuple):
    """What else is no tensor; `earlier`: how many lessons of a chunk are those of earlier tokens."""

    kind: Kind
    widths: list[int]
    ends: list[bool | Tensor]
    earlier: int
    tracked: bool

    @property
    def same(self) -> tuple[int, ...]:
        """Which of running and committed weights, momenta and sums that wait are known without a look: those
        committed, where no chunk ends, with a rule at the commit all weights; no sums, where the last ends.
        """
        if all(which is False for which in self.ends):
            return (0, 1, 2) if self.kind.commits else (1,)
        return (3,) if self.ends[-1] is True else ()

    @property
    def lessons(self) -> list[int]:
        """How many every chunk has."""
        return [width + self.earlier for width in self.widths]

    def slices(self) -> list[tuple[slice, slice]]:
        """Where every chunk lies among the slots, and among the lessons."""
        return list(zip(_runs(self.widths), _runs(self.lessons), strict=True))

    def cut(self, given: Groups, part: slice, joined: bool = True) -> list[tuple[Fading, list[Following]]]:
        """The factors of every chunk; what scales a step has its sign."""
        fades = list(zip(*(self._numbers(given.fade, part, joined)), strict=True))
        ways = list(zip(*(self._way(way, part, joined) for way in given.ways), strict=True))
        return [(self._of(n, Fading(*fade)), list(ways[n]) if ways else []) for n, fade in enumerate(fades)]

    def _of(self, n: int, fade: Fading) -> Fading:
        """Where nobody's chunk ends a rule at the commit does not run."""
        idle = self.kind.commits and self.ends[n] is False
        return Fading(None, None, None, None, None, fade.weight) if idle else fade

    def _numbers(self, fade: Fading, part: slice, joined: bool) -> Iterator[Sequence[Any]]:
        for x, wide, taken in zip(fade, self.kind.wide, TAKEN, strict=True):
            if x is None:
                yield [None] * len(self.widths)
                continue
            factors = lanes(x[part], joined)
            factors = factors.neg() if taken else factors
            if wide:
                yield factors.unsqueeze(-1).split(self.lessons, -2)
            else:
                yield factors[..., None, None].unbind(-3)

    def _way(self, way: Following, part: slice, joined: bool) -> list[Following]:
        kernel, *rest = (None if x is None else lanes(x[part], joined) for x in way)
        assert kernel is not None
        kernels = (k[..., :c] for k, c in zip(kernel.split(self.widths, -2), self.lessons, strict=True))
        none = [None] * len(self.widths)
        left = (none if x is None else x.unsqueeze(-1).split(self.widths, -2) for x in rest)
        return [Following(*row) for row in zip(kernels, *left, strict=True)]


def _runs(widths: list[int]) -> list[slice]:
    ends = list(accumulate(widths, initial=0))
    return [slice(start, stop) for start, stop in pairwise(ends)]


class Groups(NamedTuple):
    """Rows `[B, L, H, d]` (`inputs`: key, target and more), factors, weights `[B, H, out, in]`, and slow
    parameters of the map; `gathered`: sums of gradients that wait for the commit, `None` for none.

    Of one chunk: rows `[X, C, d]`, factors `[X, 1, 1]`, of tokens `[X, C, 1]`, weights `[X, out, in]`.
    """

    queries: Sequence[Any]
    inputs: Sequence[Any]
    fade: Fading
    ways: Sequence[Following]
    running: Sequence[Any]
    committed: Sequence[Any]
    slots: Sequence[Any]
    gathered: Sequence[Any]
    anchors: Sequence[Any]
    shared: Sequence[Any]

    def flat(self) -> list[Tensor | None]:
        """As `Kind.groups` takes them."""
        ways = [x for way in self.ways for x in way]
        return [*self.queries, *self.inputs, *self.fade, *ways, *(x for group in self[4:] for x in group)]

    def parts(self, room: int, lanes: int = 1) -> Iterator[slice]:
        """Samples that are worked on together: the weights of those on a CPU fit in `room` bytes.

        There are so many that they have `lanes`, if the batch has.
        """
        batch, first = self.inputs[0].shape[0], self.running[0]
        size = sum(w[:1].numel() for w in (*self.running, *self.slots)) * first.element_size()
        least = -(-lanes // max(1, first.shape[1]))
        width = max(least, room // max(1, size)) if first.device.type == "cpu" else max(1, batch)
        for start in range(0, max(1, batch), width):
            yield slice(start, min(start + width, batch))


def lanes(x: Tensor, joined: bool) -> Tensor:
    """`[B, H, ..]`, or `[X, ..]` where samples and heads are joined."""
    return x.flatten(0, 1) if joined else x


def piece(x: Tensor, part: slice, at: slice, joined: bool = True) -> Tensor:
    """`[B, L, H, d]` to rows `[X, C, d]`."""
    return lanes(x[part, at].transpose(1, 2), joined)


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


class Kept(NamedTuple):
    """Of one chunk: what its reads keep, and what their running weights do; what the gradient keeps; `x, dy`
    of every weight; the sums of gradients that a rule at the commit was given, where its factors ask.
    """

    reads: list[list[Any]]
    live: list[list[Any]]
    kept: list[Any]
    learnt: list[Any]
    gathered: list[Any]

    def mapped(self, function: Callable[[list[Any]], list[Any]]) -> Kept:
        """Every list through a function."""
        reads, live = ([function(r) for r in group] for group in (self.reads, self.live))
        return Kept(reads, live, function(self.kept), function(self.learnt), function(self.gathered))


class Chunk(NamedTuple):
    """Of one chunk: queries and inputs, weights and waiting sums in front of it, and what it keeps."""

    queries: list[Any]
    inputs: list[Any]
    running: list[Any]
    committed: list[Any]
    slots: list[Any]
    gathered: list[Any]
    kept: Kept

    def mapped(self, function: Callable[[list[Any]], list[Any]]) -> Chunk:
        """Every list through a function."""
        queries, inputs, *weights = (function(group) for group in self[:6])
        running, committed, slots, gathered = weights
        return Chunk(queries, inputs, running, committed, slots, gathered, self.kept.mapped(function))


def lifted(which: Tensor, part: slice, like: Tensor) -> Tensor:
    """`[B]` to `[X, 1, 1]`, or to `[B, 1, 1, 1]` beside weights whose samples and heads are apart."""
    flags = which[part]
    if like.dim() == 4:
        return flags[:, None, None, None]
    return flags.repeat_interleave(like.shape[0] // max(1, flags.shape[0]))[:, None, None]


def chosen(which: bool | Tensor, part: slice, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the samples whose chunk ends, `old` for the others."""
    if isinstance(which, bool):
        return new if which else old
    return torch.where(lifted(which, part, new), new, old)


def waiting(which: bool | Tensor, part: slice, sums: Sequence[Tensor]) -> list[Tensor | None]:
    """The sums of gradients that wait behind a chunk: none where it ends."""
    if isinstance(which, bool):
        return [None if which else g for g in sums]
    return [torch.where(lifted(which, part, g), 0.0, g) for g in sums]


def sides(x: Tensor, dy: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The narrow rows, which factors are put on, the wide ones, and `matrix` from wide to narrow."""
    return (x, dy, matrix) if x.shape[-1] <= dy.shape[-1] else (dy, x, matrix.mT)
