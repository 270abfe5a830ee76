"""The way back through the chunks of a memory whose gradients and reads look at the last commit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.held_gates import Fading
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
)


class Way:
    """The way back through all chunks of some samples."""

    def __init__(
        self, job: Job, fade: Fading, part: slice, grads: Sequence[Tensor | None], made: Groups
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
        self.apart = True
        """Whether gradients at the committed weights are held apart from those at the running ones."""
        self.numbers = numbers_of(job, fade, part)
        self.totals: list[list[Tensor | None]] = [[], [], [], [], []]

    def back(self, chunks: list[Chunk]) -> None:
        """Fill `made` with the gradients of everything that was given."""
        places, made = self.job.slices(), self.made
        for n in range(len(chunks) - 1, -1, -1):
            self._commit(self.job.ends[n])
            seeds = self._written(chunks[n], self.numbers[n])
            before = self.job.ends[n - 1] if n else False
            if not self.apart and before is not True:
                self.committed = [torch.zeros_like(w) for w in self.running]
                self.apart = True
            self._answered(chunks[n], seeds, places[n])
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
            flags = lifted(which, self.part, seen)
            run += torch.where(flags, seen, 0.0)
            seen.masked_fill_(flags, 0.0)
        self.apart = which is not True

    def _written(self, chunk: Chunk, numbers: Numbers) -> list[Tensor]:
        """Through the write: gradients at `x, dy` of every weight; `running`, `slots` move in front of it."""
        seeds: list[Tensor] = []
        totals: list[list[Tensor]] = [[], [], [], [], []]
        for i, run in enumerate(self.running):
            pair = chunk.learnt[2 * i : 2 * i + 2]
            narrow, wide, matrix = sides(pair[0], pair[1], run)
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
        chunk: Chunk,
        numbers: Numbers,
        rows: tuple[Tensor, Tensor, Tensor, Tensor],
        totals: list[list[Tensor]],
    ) -> None:
        narrow, wide, at_narrow, to_wide = rows
        slot, flow, run = chunk.slots[i].flatten(1), self.slots[i], self.running[i]
        assert numbers.kept is not None
        matrix = sides(chunk.learnt[2 * i], chunk.learnt[2 * i + 1], flow)[2]
        at_slot = torch.bmm(wide, matrix)
        totals[4].append(torch.linalg.vecdot(at_slot, narrow))
        to_wide.baddbmm_(narrow * numbers.kept, matrix.mT)
        at_narrow.addcmul_(at_slot, numbers.kept)
        totals[2].append(torch.linalg.vecdot(run.flatten(1), slot))
        totals[3].append(torch.linalg.vecdot(flow.flatten(1), slot))
        assert numbers.left is not None
        assert numbers.back is not None
        flow.mul_(numbers.left).addcmul_(run, numbers.back)

    def _answered(self, chunk: Chunk, seeds: list[Tensor], at: slice) -> None:
        """Through gradients and reads, to rows and committed weights."""
        (read, learn), made = self.job.functions, self.made
        *queries, key, target = chunk.rows
        found = learn.back(*seeds, key, target, *chunk.committed, *chunk.kept)
        put(found[0], made.key, self.part, at)
        put(found[1], made.target, self.part, at)
        self._gather(learn, found[2:])
        for q, kept, answer, into in zip(queries, chunk.reads, self.answers, made.queries, strict=True):
            if answer is None:
                put(None, into, self.part, at)
                continue
            found = read.back(piece(answer, self.part, at), q, *chunk.committed, *kept)
            put(found[0], into, self.part, at)
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
