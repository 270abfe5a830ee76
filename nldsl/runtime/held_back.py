"""The way back through the chunks of a memory whose gradients look at the last commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nldsl.runtime.held_gates import Fading, Following
from nldsl.runtime.held_live import LiveBias, LiveWeight, live_weights
from nldsl.runtime.held_parts import (
    Chunk,
    Groups,
    Job,
    Numbers,
    Pulled,
    lifted,
    numbers_of,
    piece,
    put,
    sides,
    ways_of,
)


class Way:
    """The way back through all chunks of some samples."""

    def __init__(
        self, job: Job, given: Groups, part: slice, grads: Sequence[Tensor | None], made: Groups
    ) -> None:
        self.job, self.part, self.made = job, part, made
        self.answers = grads[: job.queries]
        flowing = [
            torch.zeros_like(w[part]).flatten(0, 1) if g is None else g[part].flatten(0, 1).clone()
            for w, g in zip((*made.running, *made.committed, *made.slots), grads[job.queries :], strict=True)
        ]
        count = job.weights
        self.running, self.committed, self.slots = (
            flowing[i : i + count] for i in range(0, 3 * count, count)
        )
        self.anchored = [torch.zeros_like(w[part]).flatten(0, 1) for w in made.anchors]
        self.anchors = [w[part].flatten(0, 1) for w in given.anchors]
        self.shared = given.shared
        self.apart = True
        """Whether gradients at the committed weights are held apart from those at the running ones."""
        self.numbers, self.ways = numbers_of(job, given.fade, part), ways_of(job, given.ways, part)
        self.totals: list[list[Tensor | None]] = [[], [], [], [], []]
        self.tolls = [Toll(way, part) for way in made.ways]

    def back(self, chunks: list[Chunk]) -> None:
        """Fill `made` with the gradients of everything that was given."""
        places, made = self.job.slices(), self.made
        for n in range(len(chunks) - 1, -1, -1):
            self._commit(self.job.ends[n])
            at, told = places[n]
            pairs = self.job.pairs(chunks[n].learnt)
            seeds = self._written(chunks[n], pairs, self.numbers[n])
            before = self.job.ends[n - 1] if n else False
            if not self.apart and before is not True:
                self.committed = [torch.zeros_like(w) for w in self.running]
                self.apart = True
            for i in range(self.job.queries):
                self._answered(i, chunks[n], at, (pairs, seeds, self.ways[n]))
            self._learnt(chunks[n], seeds, told)
        groups = (made.running, made.committed, made.slots, made.anchors)
        flows = (self.running, self.committed, self.slots, self.anchored)
        for group, flow in zip(groups, flows, strict=True):
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
            flags = lifted(which, self.part, seen)
            run += torch.where(flags, seen, 0.0)
            seen.masked_fill_(flags, 0.0)
        self.apart = which is not True

    def _written(
        self, chunk: Chunk, pairs: list[tuple[Tensor, Tensor]], numbers: Numbers
    ) -> list[tuple[Tensor, Tensor]]:
        """Through the write: gradients at `x, dy` of every weight; `running`, `slots` move in front of it."""
        seeds: list[tuple[Tensor, Tensor]] = []
        totals: list[list[Tensor]] = [[], [], [], [], []]
        for i, (run, pair) in enumerate(zip(self.running, pairs, strict=True)):
            narrow, wide, matrix = sides(pair[0], pair[1], run)
            at_narrow = torch.bmm(wide, matrix)
            totals[1].append(torch.linalg.vecdot(at_narrow, narrow))
            to_wide = torch.bmm(narrow * numbers.reach, matrix.mT)
            at_narrow.mul_(numbers.reach)
            if numbers.keep is not None:
                totals[0].append(torch.linalg.vecdot(run.flatten(1), chunk.running[i].flatten(1)))
            if self.job.filtered:
                self._through_slot(i, chunk, pair, numbers, (at_narrow, to_wide), totals)
            if numbers.keep is not None:
                self._faded(i, numbers.keep, totals[0])
            seeds.append((at_narrow, to_wide) if narrow is pair[0] else (to_wide, at_narrow))
        for total, parts in zip(self.totals, totals, strict=True):
            total.append(sum(parts[1:], parts[0]) if parts else None)
        return seeds

    def _faded(self, i: int, keep: Tensor, totals: list[Tensor]) -> None:
        """Through `r + keep (W - r)`."""
        run = self.running[i]
        if not self.anchors:
            run.mul_(keep)
            return
        totals[-1] = totals[-1] - torch.linalg.vecdot(run.flatten(1), self.anchors[i].flatten(1))
        self.anchored[i].addcmul_(run, 1.0 - keep)
        run.mul_(keep)

    def _through_slot(
        self,
        i: int,
        chunk: Chunk,
        pair: tuple[Tensor, Tensor],
        numbers: Numbers,
        seeds: tuple[Tensor, Tensor],
        totals: list[list[Tensor]],
    ) -> None:
        at_narrow, to_wide = seeds
        slot, flow, run = chunk.slots[i].flatten(1), self.slots[i], self.running[i]
        narrow, wide, matrix = sides(pair[0], pair[1], flow)
        assert numbers.kept is not None
        at_slot = torch.bmm(wide, matrix)
        totals[4].append(torch.linalg.vecdot(at_slot, narrow))
        to_wide.baddbmm_(narrow * numbers.kept, matrix.mT)
        at_narrow.addcmul_(at_slot, numbers.kept)
        totals[2].append(torch.linalg.vecdot(run.flatten(1), slot))
        totals[3].append(torch.linalg.vecdot(flow.flatten(1), slot))
        assert numbers.left is not None
        assert numbers.back is not None
        flow.mul_(numbers.left).addcmul_(run, numbers.back)

    def _answered(
        self,
        i: int,
        chunk: Chunk,
        at: slice,
        write: tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]], list[Following]],
    ) -> None:
        """Through a read, to its query and the weights it saw."""
        read, made = self.job.functions[0], self.made
        (pairs, seeds, ways), answer = write, self.answers[i]
        if answer is None:
            put(None, made.queries[i], self.part, at)
            if self.job.live:
                self.tolls[self.job.live[i]].add(at, None, [])
            return
        q, flow = chunk.rows[i], piece(answer, self.part, at)
        if not self.job.live:
            found = read.back(flow, q, *chunk.committed, *self.shared, *chunk.reads[i])
            put(found[0], made.queries[i], self.part, at)
            self._gather(read, found[1:])
            return
        way = self.job.live[i]
        weights = live_weights(self.job, chunk, ways[way], pairs, self.anchors, chunk.live[i])
        given = [
            kept if isinstance(w, LiveBias) else w for w, kept in zip(weights, chunk.live[i], strict=True)
        ]
        found = read.back(flow, q, *given, *self.shared, *chunk.reads[i])
        put(found[0], made.queries[i], self.part, at)
        self._follow(way, at, weights, found[1:], seeds)

    def _follow(
        self,
        way: int,
        at: slice,
        weights: list[LiveWeight | LiveBias],
        pairs: Sequence[Tensor | None],
        seeds: list[tuple[Tensor, Tensor]],
    ) -> None:
        """To what running weights are made of: those in front of the chunk, `x, dy`, and the factors."""
        counts, rest = self.job.functions[0].pairs, iter(pairs)
        for i, weight in enumerate(weights):
            groups = (self.running, self.slots, self.anchored)
            flows = [group[i] for group in groups if group][: len(weight.states)]
            for _ in range(counts[i]):
                d, z = next(rest), next(rest)
                assert d is not None
                self.tolls[way].add(at, *weight.gather(d, z, flows, seeds[i]))
        self._share(counts[len(weights) :], rest)

    def _learnt(self, chunk: Chunk, seeds: list[tuple[Tensor, Tensor]], at: slice) -> None:
        """Through the gradients, to key, target and committed weights."""
        learn, biases = self.job.functions[1], self.job.biases
        given = [s for i, (x, dy) in enumerate(seeds) for s in ((x,) if i in biases else (x, dy))]
        inputs = chunk.rows[self.job.queries :]
        found = learn.back(*given, *inputs, *chunk.committed, *self.shared, *chunk.kept)
        for rows, into in zip(found, self.made.inputs, strict=False):
            put(rows, into, self.part, at)
        self._gather(learn, found[len(inputs) :])

    def _gather(self, function: Pulled, pairs: Sequence[Tensor | None]) -> None:
        """Add `dy^T x` of every pair to the gradient of its weight."""
        count_of, rest = function.pairs, iter(pairs)
        for i, count in enumerate(count_of[: self.job.weights]):
            into = (self.committed if self.apart else self.running)[i]
            for _ in range(count):
                dy, x = next(rest), next(rest)
                assert dy is not None
                if x is None:
                    into.add_(dy.sum(1, keepdim=True))
                else:
                    into.baddbmm_(dy.mT, x)
        self._share(count_of[self.job.weights :], rest)

    def _share(self, counts: Sequence[int], rest: Iterator[Tensor | None]) -> None:
        """The same for slow parameters, which all samples and heads share."""
        for into, count in zip(self.made.shared, counts, strict=True):
            for _ in range(count):
                dy, x = next(rest), next(rest)
                assert dy is not None
                if x is None:
                    into.add_(dy.sum((0, 1)))
                else:
                    into.addmm_(dy.flatten(0, 1).T, x.flatten(0, 1))

    def _to_factors(self, fade: Fading) -> None:
        """Gradients of the factors, collected from the last chunk to the first."""
        for into, found, wide in zip(fade, self.totals, (False, True, False, False, True), strict=True):
            if into is None:
                continue
            rows = [t for t in reversed(found) if t is not None]
            made = torch.cat(rows, 1).neg_() if wide else torch.stack(rows, 1)
            into[self.part] = made.view(into[self.part].shape)


class Toll:
    """Gradients at the factors of one way, chunk by chunk."""

    def __init__(self, made: Following, part: slice) -> None:
        self.made = Following(*(None if x is None else x[part].zero_() for x in made))  # type: ignore[arg-type]

    def add(self, at: slice, kernel: Tensor | None, left: Sequence[Tensor]) -> None:
        """Of one weight and chunk: `kernel [X, C, C]`, and of what is left of each of its states."""
        if kernel is None:
            return
        rest, (to_kernel, carried, lent) = list(left), self.made
        place = to_kernel[:, :, at, : kernel.shape[-1]]
        place.add_(kernel.view(place.shape))
        for into, sign in ((carried, 1), (lent, 1), (carried, -1)):
            if into is not None and rest:
                place = into[:, :, at]
                place.add_(rest.pop(0).view(place.shape), alpha=sign)
