"""All chunks of a memory whose gradients and reads look at the last commit, in one function.

Between two commits the inputs `x` and output gradients `dy` of every weight follow from the committed weights
`S` alone; then (see `held_gates`)

    W' = keep W + back m - (dy * reach)^T x,   m' = left m - (dy * kept)^T x,   S' = W' where a chunk ends.

What maps and gradients are is given as functions of rows with their pullbacks, both derived when the
specification was compiled; the way back through the chunks is made of them.  Nothing of a chunk passes through the
bookkeeping of automatic differentiation, and gradients of a weight are added in place.

Shapes: `B` batch, `H` heads (1 without), `X` = some samples x heads, `L` slots of all chunks, `C` of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import Fading

CACHE = 2**22
"""Bytes of running weights that are worked on together on a CPU."""


class Pulled(NamedTuple):
    """A function of rows and weights, and its way back.

    `forward(*rows, *weights)` gives `outputs` results and what is kept for the way back.
    `back(*d_results, *rows, *weights, *results, *kept)` gives gradients at the rows (`None`: it does not depend
    on them), then for every weight as many pairs `dy, x` as `pairs` says: its gradient is `sum dy^T x`.
    """

    forward: Callable[..., tuple[Tensor, ...]]
    back: Callable[..., tuple[Tensor | None, ...]]
    outputs: int
    pairs: tuple[int, ...]


class Held(NamedTuple):
    """Answers `[B, T, H, d]` to every query, and the weights behind the call."""

    reads: tuple[Tensor, ...]
    running: tuple[Tensor, ...]
    committed: tuple[Tensor, ...]
    slots: tuple[Tensor, ...]


@torch.compiler.disable
def held_pass(
    grid: ChunkGrid,
    clock: int,
    functions: tuple[Pulled, Pulled],
    rows: tuple[tuple[Tensor, ...], Tensor, Tensor],
    fade: Fading,
    weights: tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]],
) -> Held:
    """Reads and writes of a sequence; `functions`: the map, and the gradient with `x, dy` of every weight.

    `rows`: queries, keys and targets `[B, T, H, d]`; `weights`: running, committed, and momenta (none or one of
    every weight), each `[B, H, out, in]`.

    >>> def read(z, W): return (z @ W.mT,)
    >>> def read_back(dy, z, W, y): return dy @ W, dy, z
    >>> def learn(k, v, W): return k, k @ W.mT - v
    >>> def learn_back(dx, ddy, k, v, W, x, dy): return dx + ddy @ W, -ddy, ddy, k
    >>> functions = Pulled(read, read_back, 1, (1,)), Pulled(learn, learn_back, 2, (1,))
    >>> grid, one, W = ChunkGrid(torch.tensor([0]), None, 2, 1), torch.ones(1, 2, 1, 1), torch.zeros(1, 1, 1, 1)
    >>> fade = Fading(None, torch.full((1, 1, 2), 0.5), None, None, None)
    >>> held = held_pass(grid, 1, functions, ((one,), one, one), fade, ((W,), (W,), ()))
    >>> held.reads[0].flatten().tolist(), held.running[0].item()
    ([0.0, 0.5], 0.75)
    """
    queries, key, target = rows
    running, committed, slots = weights
    laid = [grid.lay(x) for x in (*queries, key, target)]
    tensors = [*laid, *fade, *running, *committed, *slots]
    tracked = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    job = _Job(functions, grid.widths, grid.ends(clock), len(queries), len(running), bool(slots), tracked)
    made = _HeldPass.apply(job, *tensors)  # type: ignore[no-untyped-call]
    answers, ends = made[: len(queries)], made[len(queries) :]
    groups = [tuple(ends[i : i + len(running)]) for i in range(0, len(ends), len(running))]
    reads = tuple(grid.unlay(y) for y in answers)
    return Held(reads, groups[0], groups[1], groups[2] if slots else ())


class _Job(NamedTuple):
    """What is no tensor."""

    functions: tuple[Pulled, Pulled]
    widths: list[int]
    ends: list[bool | Tensor]
    queries: int
    weights: int
    filtered: bool
    tracked: bool

    def groups(self, tensors: Sequence[Any]) -> _Groups:
        """The tensors of a call, or what belongs to them."""
        m, at = self.queries, self.queries + 7
        cuts = [tensors[at + i * self.weights : at + (i + 1) * self.weights] for i in range(3)]
        return _Groups(tensors[:m], tensors[m], tensors[m + 1], Fading(*tensors[m + 2 : at]), *cuts)


class _Groups(NamedTuple):
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
        for start in range(0, batch, width):
            yield slice(start, min(start + width, batch))


class _Numbers(NamedTuple):
    """The factors of one chunk: `[X, 1, 1]`, and `[X, C, 1]` with the sign of a step."""

    keep: Tensor | None
    reach: Tensor
    back: Tensor | None
    left: Tensor | None
    kept: Tensor | None


def _numbers(job: _Job, fade: Fading, part: slice) -> list[_Numbers]:
    """Of every chunk."""
    columns: list[Sequence[Tensor | None]] = []
    for x, wide in zip(fade, (False, True, False, False, True), strict=True):
        if x is None:
            columns.append([None] * len(job.widths))
        elif wide:
            columns.append(x[part].flatten(0, 1).neg().unsqueeze(-1).split(job.widths, 1))
        else:
            columns.append(x[part].flatten(0, 1)[..., None, None].unbind(1))
    return [_Numbers(*row) for row in zip(*columns, strict=True)]  # type: ignore[arg-type]


def _piece(x: Tensor, part: slice, at: slice) -> Tensor:
    """`[B, L, H, d]` to rows `[X, C, d]`."""
    return x[part, at].transpose(1, 2).flatten(0, 1)


def _put(rows: Tensor | None, into: Tensor, part: slice, at: slice) -> None:
    place = into[part, at].transpose(1, 2)
    if rows is None:
        place.zero_()
    else:
        place.copy_(rows.view(place.shape))


def _slices(job: _Job) -> list[slice]:
    found, start = [], 0
    for width in job.widths:
        found.append(slice(start, start + width))
        start += width
    return found


class _Shelf:
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


class _Chunk(NamedTuple):
    """Of one chunk: queries, key and target; results of reads and of the gradient; weights in front of it."""

    rows: list[Any]
    reads: list[list[Any]]
    learnt: list[Any]
    committed: list[Any]
    running: list[Any]
    slots: list[Any]

    def mapped(self, function: Callable[[list[Any]], list[Any]]) -> _Chunk:
        """Every list through a function."""
        rest = (function(x) for x in self[2:])
        return _Chunk(function(self.rows), [function(r) for r in self.reads], *rest)


class _HeldPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        given = job.groups(tensors)
        shelf, kept, lasts = _Shelf(), [], []
        answers: list[Tensor] = []
        for part in given.parts():
            chunks, last = _forward_part(job, given, part, answers)
            if job.tracked:
                kept.append([chunk.mapped(shelf.put) for chunk in chunks])
            lasts.append(last)
        if job.tracked:
            ctx.save_for_backward(*tensors, *shelf.tensors)
            ctx.job, ctx.kept, ctx.count = job, kept, len(tensors)
            ctx.set_materialize_grads(False)
        groups = [*given.running, *given.committed, *given.slots]
        ends = [torch.cat(x).view(old.shape) for x, old in zip(zip(*lasts, strict=True), groups, strict=True)]
        return *answers, *ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        job, tensors = ctx.job, ctx.saved_tensors
        given, shelf = job.groups(tensors[: ctx.count]), tensors[ctx.count :]
        made = [None if t is None else torch.empty_like(t) for t in tensors[: ctx.count]]
        with torch.autocast(given.key.device.type, enabled=False):
            for part, chunks in reversed(list(zip(given.parts(), ctx.kept, strict=True))):
                found = [c.mapped(lambda places: [shelf[i] for i in places]) for c in chunks]
                _Way(job, given, part, grads).back(found, job.groups(made))
        return None, *made


def _forward_part(
    job: _Job, given: _Groups, part: slice, answers: list[Tensor]
) -> tuple[list[_Chunk], list[Tensor]]:
    """All chunks of some samples: what the way back needs, and the weights behind them."""
    read, learn = job.functions
    running, committed, slots = ([w[part].flatten(0, 1) for w in group] for group in given[4:])
    numbers, chunks = _numbers(job, given.fade, part), []
    for n, at in enumerate(_slices(job)):
        rows = [_piece(x, part, at) for x in (*given.queries, given.key, given.target)]
        reads = []
        for i, q in enumerate(rows[:-2]):
            found = list(read.forward(q, *committed))
            if len(answers) <= i:
                answers.append(q.new_empty(*given.key.shape[:3], found[0].shape[-1]))
            _put(found[0], answers[i], part, at)
            reads.append(found)
        learnt = list(learn.forward(*rows[-2:], *committed))
        if job.tracked:
            chunks.append(_Chunk(rows, reads, learnt, committed, running, slots))
        moved = [
            _move(w, slots[i] if job.filtered else None, learnt[2 * i : 2 * i + 2], numbers[n])
            for i, w in enumerate(running)
        ]
        running, slots = [m[0] for m in moved], [m[1] for m in moved if m[1] is not None]
        committed = [
            _chosen(job.ends[n], part, new, old) for new, old in zip(running, committed, strict=True)
        ]
    return chunks, [*running, *committed, *slots]


def _lifted(which: Tensor, part: slice, like: Tensor) -> Tensor:
    """`[B]` to `[X, 1, 1]`."""
    flags = which[part]
    return flags.repeat_interleave(like.shape[0] // flags.shape[0])[:, None, None]


def _chosen(which: bool | Tensor, part: slice, new: Tensor, old: Tensor) -> Tensor:
    if isinstance(which, bool):
        return new if which else old
    return torch.where(_lifted(which, part, new), new, old)


def _sides(x: Tensor, dy: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The narrow rows, which factors are put on, the wide ones, and `matrix` from wide to narrow."""
    return (x, dy, matrix) if x.shape[-1] <= dy.shape[-1] else (dy, x, matrix.mT)


def _move(
    weight: Tensor, slot: Tensor | None, pair: Sequence[Tensor], numbers: _Numbers
) -> tuple[Tensor, Tensor | None]:
    """A weight and its momentum behind a chunk."""
    narrow, wide, _ = _sides(*pair, weight)
    turned = narrow is not pair[0]

    def stepped(matrix: Tensor, factors: Tensor) -> Tensor:
        scaled = narrow * factors
        left, x = (scaled, wide) if turned else (wide, scaled)
        return matrix.baddbmm_(left.mT, x)

    new = weight.clone() if numbers.keep is None else weight * numbers.keep
    if slot is None or numbers.kept is None or numbers.back is None:
        return stepped(new, numbers.reach), None
    new.addcmul_(slot, numbers.back)
    return stepped(new, numbers.reach), stepped(slot * numbers.left, numbers.kept)


class _Way:
    """The way back through all chunks of some samples."""

    def __init__(self, job: _Job, given: _Groups, part: slice, grads: Sequence[Tensor | None]) -> None:
        self.job, self.part = job, part
        self.answers = grads[: job.queries]
        flowing = [
            torch.zeros_like(w[part]).flatten(0, 1) if g is None else g[part].flatten(0, 1).clone()
            for w, g in zip(
                (*given.running, *given.committed, *given.slots), grads[job.queries :], strict=True
            )
        ]
        count = job.weights
        self.running, self.committed, self.slots = (
            flowing[i : i + count] for i in range(0, 3 * count, count)
        )
        self.apart = True
        """Whether gradients at the committed weights are held apart from those at the running ones."""
        self.numbers = _numbers(job, given.fade, part)
        self.totals: list[list[Tensor | None]] = [[], [], [], [], []]

    def back(self, chunks: list[_Chunk], made: _Groups) -> None:
        """Fill `made` with the gradients of everything that was given."""
        places = _slices(self.job)
        for n in range(len(chunks) - 1, -1, -1):
            self._commit(self.job.ends[n])
            seeds = self._written(chunks[n], self.numbers[n])
            before = self.job.ends[n - 1] if n else False
            if not self.apart and before is not True:
                self.committed = [torch.zeros_like(w) for w in self.running]
                self.apart = True
            self._answered(chunks[n], seeds, places[n], made)
        groups = (made.running, made.committed, made.slots)
        for group, flow in zip(groups, (self.running, self.committed, self.slots), strict=True):
            for into, g in zip(group, flow, strict=True):
                into[self.part] = g.view(into[self.part].shape)
        self._to_factors(made.fade)

    def _commit(self, which: bool | Tensor) -> None:
        """From the committed weights behind the chunk to the running ones and those in front of it."""
        if not self.apart or which is False:
            return
        for run, seen in zip(self.running, self.committed, strict=True):
            if which is True:
                run += seen
                continue
            assert isinstance(which, Tensor)
            flags = _lifted(which, self.part, seen)
            run += torch.where(flags, seen, 0.0)
            seen.masked_fill_(flags, 0.0)
        self.apart = which is not True

    def _written(self, chunk: _Chunk, numbers: _Numbers) -> list[Tensor]:
        """Through the write: gradients at `x, dy` of every weight; `running` and `slots` move in front of it."""
        seeds: list[Tensor] = []
        totals: list[list[Tensor]] = [[], [], [], [], []]
        for i, run in enumerate(self.running):
            pair = chunk.learnt[2 * i : 2 * i + 2]
            narrow, wide, matrix = _sides(*pair, run)
            at_narrow = torch.bmm(wide, matrix)
            totals[1].append(torch.linalg.vecdot(at_narrow, narrow))
            to_wide = torch.bmm(narrow * numbers.reach, matrix.mT)
            at_narrow.mul_(numbers.reach)
            old = chunk.running[i].flatten(1)
            if numbers.keep is not None:
                totals[0].append(torch.linalg.vecdot(run.flatten(1), old))
            if self.job.filtered:
                self._through_slot(i, chunk, numbers, (narrow, wide, at_narrow, to_wide), totals)
            if numbers.keep is not None:
                run.mul_(numbers.keep)
            seeds += (at_narrow, to_wide) if narrow is pair[0] else (to_wide, at_narrow)
        for total, parts in zip(self.totals, totals, strict=True):
            total.append(sum(parts[1:], parts[0]) if parts else None)
        return seeds

    def _through_slot(
        self,
        i: int,
        chunk: _Chunk,
        numbers: _Numbers,
        rows: tuple[Tensor, Tensor, Tensor, Tensor],
        totals: list[list[Tensor]],
    ) -> None:
        narrow, wide, at_narrow, to_wide = rows
        slot, flow, run = chunk.slots[i].flatten(1), self.slots[i], self.running[i]
        assert numbers.kept is not None
        matrix = _sides(*chunk.learnt[2 * i : 2 * i + 2], flow)[2]
        at_slot = torch.bmm(wide, matrix)
        totals[4].append(torch.linalg.vecdot(at_slot, narrow))
        to_wide.baddbmm_(narrow * numbers.kept, matrix.mT)
        at_narrow.addcmul_(at_slot, numbers.kept)
        totals[2].append(torch.linalg.vecdot(run.flatten(1), slot))
        totals[3].append(torch.linalg.vecdot(flow.flatten(1), slot))
        flow.mul_(numbers.left).addcmul_(run, numbers.back)

    def _answered(self, chunk: _Chunk, seeds: list[Tensor], at: slice, made: _Groups) -> None:
        """Through gradients and reads, to rows and committed weights."""
        read, learn = self.job.functions
        *queries, key, target = chunk.rows
        found = learn.back(*seeds, key, target, *chunk.committed, *chunk.learnt)
        _put(found[0], made.key, self.part, at)
        _put(found[1], made.target, self.part, at)
        self._gather(learn, found[2:])
        for q, results, answer, into in zip(queries, chunk.reads, self.answers, made.queries, strict=True):
            if answer is None:
                _put(None, into, self.part, at)
                continue
            found = read.back(_piece(answer, self.part, at), q, *chunk.committed, *results)
            _put(found[0], into, self.part, at)
            self._gather(read, found[1:])

    def _gather(self, function: Pulled, pairs: Sequence[Tensor | None]) -> None:
        """Add `dy^T x` of every pair to the gradient of its weight."""
        place = 0
        for i, count in enumerate(function.pairs):
            into = (self.committed if self.apart else self.running)[i]
            for _ in range(count):
                dy, x = pairs[place : place + 2]
                assert dy is not None
                assert x is not None
                into.baddbmm_(dy.mT, x)
                place += 2

    def _to_factors(self, fade: Fading) -> None:
        """Gradients of the factors, collected from the last chunk to the first."""
        for into, found, wide in zip(fade, self.totals, (False, True, False, False, True), strict=True):
            if into is None:
                continue
            rows = [t for t in reversed(found) if t is not None]
            made = torch.cat(rows, 1).neg_() if wide else torch.stack(rows, 1)
            into[self.part] = made.view(into[self.part].shape)
