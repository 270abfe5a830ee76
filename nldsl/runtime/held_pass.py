"""All chunks of a memory whose gradients look at the last commit, in one function.

Between two commits the inputs `x` and output gradients `dy` of every weight follow from the committed weights
`S` alone; then (see `held_gates`)

    W' = keep W + back m - (dy * reach)^T x,   m' = left m - (dy * kept)^T x,   S' = W' where a chunk ends.

A rule at the commit steps once per chunk, on a sum that waits in the state till then (see `held_commit`).
Reads look at `S` too, or at the running state of every token (see `held_live`).

What maps and gradients are is given as functions of rows with their pullbacks, both derived when the
specification was compiled; the way back through the chunks (`held_back`) is made of them.  Nothing of a chunk
passes through the bookkeeping of automatic differentiation, and gradients of a weight are added in place.

Shapes: `B` batch, `T` tokens, `H` heads (1 without).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.arrays import room_of
from nldsl.runtime.first_order import first_order
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import Fading, Following
from nldsl.runtime.held_parts import Counts, Job, Kind, Pulled, Shelf
from nldsl.runtime.held_walk import PLAIN, Ahead, Back, Steps


class Held(NamedTuple):
    """Answers `[B, T, H, d]` to every query, weights and sums of gradients that wait behind the call."""

    reads: tuple[Tensor, ...]
    running: tuple[Tensor, ...]
    committed: tuple[Tensor, ...]
    slots: tuple[Tensor, ...]
    gathered: tuple[Tensor, ...]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def held_pass(
    grid: ChunkGrid,
    clock: int,
    functions: tuple[Pulled, Pulled],
    rows: tuple[tuple[Tensor, ...], Tensor, Tensor, *tuple[Tensor, ...]],
    fade: Fading,
    weights: tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]],
    *,
    gathered: tuple[Tensor, ...] = (),
    toward: tuple[Tensor, ...] = (),
    live: tuple[Following, ...] = (),
    biases: tuple[int, ...] = (),
    shared: tuple[Tensor, ...] = (),
    window: int = 1,
    steps: Steps = PLAIN,
) -> Held:
    """Reads and writes of a sequence; `functions`: the map, and the gradient with `x, dy` of every weight.

    `rows`: queries, keys, targets and what else the gradient takes, `[B, T, H, d]`, with a `window` lessons
    `[B, L', H, d]`; `weights`: running, committed, and momenta (none or one of every weight), each
    `[B, H, out, in]`; `gathered`: what waits for a rule at the commit; `toward [H, out, in]`: what retention
    moves them toward; `live`: what queries see of a running state; `biases`: which weights are some,
    `[B, H, 1, out]`; `shared`: slow parameters of the map.

    >>> def read(z, W): return (z @ W.mT,)
    >>> def read_back(dy, z, W): return dy @ W, dy, z
    >>> def learn(k, v, W): return k, k @ W.mT - v
    >>> def learn_back(dx, ddy, k, v, W): return dx + ddy @ W, -ddy, ddy, k
    >>> functions = Pulled(read, read_back, 1, (1,)), Pulled(learn, learn_back, 2, (1,))
    >>> grid, one = ChunkGrid(torch.tensor([0]), None, 2, 1), torch.ones(1, 2, 1, 1)
    >>> W = torch.zeros(1, 1, 1, 1)
    >>> fade = Fading(None, torch.full((1, 1, 2), 0.5), None, None, None)
    >>> held = held_pass(grid, 1, functions, ((one,), one, one), fade, ((W,), (W,), ()))
    >>> held.reads[0].flatten().tolist(), held.running[0].item()
    ([0.0, 0.5], 0.75)
    """
    (queries, *inputs), (running, committed, slots) = rows, weights
    ways = list({id(way): way for way in live}.values())
    laid = [*(grid.fill(q) for q in queries), *(inputs if window > 1 else map(grid.fill, inputs))]
    counts = Counts(*map(len, (queries, inputs, ways, running, slots, gathered, toward, shared)))
    waiting, none = _that_wait(gathered)
    tensors = [*laid, *fade, *(x for way in ways for x in way), *running, *committed, *slots, *waiting]
    tensors += [*(r.expand_as(w) for r, w in zip(toward, running, strict=False)), *shared]
    tracked = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    seen = tuple(next(n for n, way in enumerate(ways) if way is one) for one in live)
    kind = Kind(functions, counts, biases, seen, tuple(x is not None and x.requires_grad for x in fade))
    job = Job(kind, grid.widths, grid.ends(clock), window - 1, tracked)
    made: tuple[Tensor, ...] = _HeldPass.apply(steps, job, *tensors)  # type: ignore[no-untyped-call]
    behind = _behind(job, made[len(queries) :], (running, committed, slots, none))
    return Held(tuple(map(grid.unlay, made[: len(queries)])), *behind)


def _that_wait(gathered: Sequence[Tensor]) -> tuple[Sequence[Tensor | None], tuple[Tensor, ...]]:
    """Sums that are added, and sums of nothing: what is zero and asks for no gradient is not added."""
    waits = any(g.requires_grad or bool(g.any()) for g in gathered)
    return gathered if waits else [None] * len(gathered), tuple(torch.zeros_like(g) for g in gathered)


def _behind(
    job: Job, made: Sequence[Tensor], old: Sequence[tuple[Tensor, ...]]
) -> Iterator[tuple[Tensor, ...]]:
    """Groups of weights behind the call; those that are the same are as they were."""
    rest = iter(made)
    for n, group in enumerate(old):
        now = tuple(islice(rest, len(group)))
        yield group if n in job.same else now


class _HeldPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, steps: Steps, job: Job, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        given = job.kind.groups(tensors)
        samples = list(given.parts(steps.room(), steps.beside()))
        shelf, kept, lasts = Shelf(), [], []
        answers: list[Tensor] = []
        for part in samples:
            walk = Ahead(steps, job, given, part, answers)
            steps.ahead(walk)
            if job.tracked:
                kept.append([chunk.mapped(shelf.put) for chunk in walk.chunks])
            lasts.append([walk.running, walk.committed, walk.slots, walk.gathered])
        if job.tracked:
            numbers = [t for group in (given.fade, *given.ways) for t in group if t is not None]
            ctx.save_for_backward(*numbers, *given.anchors, *given.shared, *shelf.tensors)
            ctx.steps, ctx.job, ctx.kept, ctx.parts = steps, job, kept, samples
            ctx.likes = [None if t is None else (t.shape, t.dtype, t.device) for t in tensors]
            ctx.set_materialize_grads(False)
        ends = []
        for n, columns in enumerate(zip(*lasts, strict=True)):
            # Without gathered sums `columns` are empty lists, and so is what is made of them.
            for parts, like in zip(zip(*columns, strict=True), given.running, strict=False):
                ends.append(like.new_empty(0) if n in job.same else _whole(parts).view(like.shape))
        return *answers, *ends

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        job, saved = ctx.job, list(ctx.saved_tensors)
        groups = job.kind.groups(None if like is None else room_of(*like) for like in ctx.likes)
        fade, *ways = (_taken(saved, numbers) for numbers in (groups.fade, *groups.ways))
        anchors, shared = _taken(saved, groups.anchors), _taken(saved, groups.shared)
        given = groups._replace(
            fade=Fading(*fade), ways=[Following(*way) for way in ways], anchors=anchors, shared=shared
        )
        for into in groups.shared:
            into.zero_()
        for part, chunks in reversed(list(zip(ctx.parts, ctx.kept, strict=True))):
            found = [c.mapped(lambda places: [saved[i] for i in places]) for c in chunks]
            Back(ctx.steps, job, given, part, grads, groups, found).back()
        return None, None, *groups.flat()


def _taken(saved: list[Tensor], like: Sequence[Tensor | None]) -> list[Any]:
    """From the front of what was kept, as much as there is."""
    return [None if t is None else saved.pop(0) for t in like]


def _whole(parts: tuple[Tensor, ...]) -> Tensor:
    """The weights of all samples."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
