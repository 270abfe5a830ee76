"""All chunks of some samples, one behind the other, and the way back through them (see `held_pass`).

Shapes: `B` some samples, `H` heads, `X = B H`, `L` slots of all chunks, `C` tokens of one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.arrays import room_like
from nldsl.runtime.held_back import Flows, Found, chunk_back, reads_back
from nldsl.runtime.held_chunk import Passed, pass_chunk
from nldsl.runtime.held_gates import Following
from nldsl.runtime.held_parts import (
    CACHE,
    TAKEN,
    Chunk,
    Groups,
    Job,
    Kept,
    Kind,
    chosen,
    lanes,
    lifted,
    piece,
    put,
    waiting,
)


class Steps:
    """How a chunk is computed: by torch, all samples and heads together.

    Where they are not `joined`, `[X, ..]` is `[B, H, ..]`, also of what is returned, and gradients at slow
    parameters are `[B, H, ..]`.
    """

    joined = True

    def room(self) -> int:
        """Bytes of weights that are worked on together."""
        return CACHE

    def beside(self) -> int:
        """How many lanes, samples times heads, are worked on together at least: threads share those apart."""
        return 1 if self.joined else torch.get_num_threads()

    def forward(self, kind: Kind, given: Groups, tracked: bool) -> Passed:
        """See `pass_chunk`."""
        return pass_chunk(kind, given)

    def back(
        self, kind: Kind, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> tuple[Found, Flows]:
        """See `chunk_back`; the gradients in front of the chunk, as they are now."""
        return chunk_back(kind, given, kept, flows, answers), flows

    def reads(
        self, kind: Kind, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> tuple[list[Tensor | None], Flows]:
        """See `reads_back`; the gradients in front of the chunk, those at the committed weights made anew."""
        flows = flows._replace(committed=[torch.zeros_like(w) for w in given.committed])
        return reads_back(kind, given, kept, flows, answers), flows

    def ahead(self, walk: Ahead) -> None:
        """Through all chunks, one by one."""
        for n in range(len(walk.job.widths)):
            walk.one(n)

    def behind(self, back: Back) -> None:
        """Back through all chunks."""
        for n in range(back.last() - 1, -1, -1):
            back.one(n)


PLAIN = Steps()


class Ahead:
    """All chunks of some samples: `chunks`, what the way back needs of them, and the weights so far.

    Fills `answers [B, L, H, d]`.
    """

    def __init__(self, steps: Steps, job: Job, given: Groups, part: slice, answers: list[Tensor]) -> None:
        self.steps, self.job, self.given, self.part, self.answers = steps, job, given, part, answers
        self.factors, self.places = job.cut(given, part, steps.joined), job.slices()
        self.running, self.committed, self.slots, self.anchors = (
            [lanes(w[part], steps.joined) for w in group]
            for group in (given.running, given.committed, given.slots, given.anchors)
        )
        self.gathered = [None if g is None else lanes(g[part], steps.joined) for g in given.gathered]
        self.chunks: list[Chunk] = []

    def at(self, n: int) -> Groups:
        """What a chunk is given, the weights as they are now."""
        joined, (at, told) = self.steps.joined, self.places[n]
        return Groups(
            [piece(x, self.part, at, joined) for x in self.given.queries],
            [piece(x, self.part, told, joined) for x in self.given.inputs],
            *self.factors[n],
            self.running,
            self.committed,
            self.slots,
            self.gathered,
            self.anchors,
            self.given.shared,
        )

    def one(self, n: int) -> None:
        """One chunk."""
        now = self.at(n)
        made = self.steps.forward(self.job.kind, now, self.job.tracked)
        for i, answer in enumerate(made.answers):
            put(answer, self.answer(i, answer, answer.shape[-1]), self.part, self.places[n][0])
        if self.job.tracked:
            self.chunks.append(chunk_of(now, made.kept))
        if made.running:
            self.running, self.slots = made.running, made.slots
        self.commit(n)
        self.gathered = waiting(self.job.ends[n], self.part, made.gathered)

    def commit(self, n: int) -> None:
        """The running weights behind a chunk are the committed ones where it ends."""
        self.committed = [
            chosen(self.job.ends[n], self.part, new, old)
            for new, old in zip(self.running, self.committed, strict=True)
        ]

    def answer(self, i: int, like: Tensor, width: int) -> Tensor:
        """Where the answers to a query of all chunks and samples are, made when the first are there."""
        if len(self.answers) <= i:
            self.answers.append(room_like(like, *self.given.queries[0].shape[:3], width))
        return self.answers[i]


def chunk_of(given: Groups, kept: Kept) -> Chunk:
    """What a chunk keeps."""
    weights = (given.running, given.committed, given.slots, given.gathered)
    running, committed, slots, gathered = (list(group) for group in weights)
    return Chunk(list(given.queries), list(given.inputs), running, committed, slots, gathered, kept)


class Back:
    """The way back through all chunks of some samples."""

    def __init__(
        self,
        steps: Steps,
        job: Job,
        given: Groups,
        part: slice,
        grads: Sequence[Tensor | None],
        made: Groups,
        chunks: list[Chunk],
    ) -> None:
        self.steps, self.job, self.part, self.given, self.made = steps, job, part, given, made
        self.chunks, self.places = chunks, job.slices()
        self.answers = grads[: job.kind.queries]
        sums = made.running if job.kind.commits and job.ends[-1] is not True else ()
        like, behind = (*made.running, *made.committed, *made.slots, *sums), grads[job.kind.queries :]
        self.spares = all(g is None for g in behind) and job.ends[-1] is True and not job.kind.live
        """Whether nothing flows into what the last chunk wrote, so that only its reads are gone through."""
        counts = (len(made.running), len(made.committed), len(made.slots), len(sums))
        apart = 2 * job.kind.weights if self.spares else 0  # `last` makes them
        flows = (
            lanes(_flow(w[part], None if g is None else g[part]), steps.joined)
            for w, g in list(zip(like, behind, strict=False))[apart:]
        )
        running, committed = ([] if apart else list(islice(flows, count)) for count in counts[:2])
        slots, gathered = (list(islice(flows, count)) for count in counts[2:])
        anchored = [lanes(torch.zeros_like(w[part]), steps.joined) for w in made.anchors]
        self.flows = Flows(running, committed, slots, anchored, self._shared(), gathered)
        self.anchors = [lanes(w[part], steps.joined) for w in given.anchors]
        self.apart = True
        """Whether gradients at the committed weights are held apart from those at the running ones."""
        self.factors = job.cut(given, part, steps.joined)
        self.totals: list[list[Tensor | None]] = [[] for _ in self.given.fade]
        self.tolls = [Following(*(None if x is None else x[part].zero_() for x in way)) for way in made.ways]  # type: ignore[arg-type]

    def _shared(self) -> list[Tensor]:
        if self.steps.joined:
            return list(self.made.shared)
        samples, heads = self.made.running[0][self.part].shape[:2]
        return [x.new_zeros(samples, heads, *x.shape) for x in self.made.shared]

    def back(self) -> None:
        """Fill `made` with the gradients of everything that was given."""
        self.steps.behind(self)
        made, flows = self.made, self.flows
        groups = (made.running, made.committed, made.slots, made.anchors)
        for group, flow in zip(groups, flows, strict=False):
            self._leave(group, flow)
        self._leave(made.gathered if flows.gathered else [], flows.gathered)
        if not self.steps.joined:
            for into, g in zip(made.shared, flows.shared, strict=True):
                into.add_(g.sum((0, 1)))
        self._to_factors()

    def _leave(self, group: Any, flow: Sequence[Tensor]) -> None:
        """Gradients of these samples among those of all, or as they are where there are no others."""
        for i, (into, g) in enumerate(zip(group, flow, strict=True)):
            if into[self.part].shape == into.shape:
                group[i] = g.view(into.shape)
            else:
                into[self.part] = g.view(into[self.part].shape)

    def at(self, n: int) -> tuple[Groups, list[Tensor | None]]:
        """What a chunk was given, and the gradients at its answers."""
        chunk = self.chunks[n]
        weights = (chunk.running, chunk.committed, chunk.slots, chunk.gathered)
        answers = [
            None if g is None else piece(g, self.part, self.places[n][0], self.steps.joined)
            for g in self.answers
        ]
        rest = (*weights, self.anchors, self.given.shared)
        return Groups(chunk.queries, chunk.inputs, *self.factors[n], *rest), answers

    def last(self) -> int:
        """How many chunks are left; of one whose write nobody asks for only the reads are gone through."""
        n = len(self.chunks) - 1
        if not self.spares:
            return n + 1
        (given, answers), (at, told) = self.at(n), self.places[n]
        found, self.flows = self.steps.reads(self.job.kind, given, self.chunks[n].kept, self.flows, answers)
        for rows, into in zip(found, self.made.queries, strict=True):
            put(rows, into, self.part, at)
        for into in self.made.inputs:
            put(None, into, self.part, told)
        for total, x, wide in zip(self.totals, given.fade, self.job.kind.wide, strict=True):
            total.append(x.new_zeros(x.shape[:-1]) if wide and x is not None else None)
        # What is committed in front of the chunk is what runs behind the one before, if that has ended.
        seen = self.flows.committed
        self.apart = not n or self.job.ends[n - 1] is not True
        running, committed = ([torch.zeros_like(w) for w in seen], seen) if self.apart else (seen, [])
        # Sums that waited in front of the chunk were asked for by its write alone.
        waited = [torch.zeros_like(g) for g in given.gathered if g is not None]
        self.flows = self.flows._replace(running=running, committed=committed, gathered=waited)
        return n

    def one(self, n: int) -> None:
        """Through one chunk."""
        self.commit(n)
        self.wait(n)
        before = self.job.ends[n - 1] if n else False
        if not self.apart and before is not True:
            zeros = [torch.zeros_like(w) for w in self.flows.running]
            self.flows, self.apart = self.flows._replace(committed=zeros), True
        (given, answers), (at, told) = self.at(n), self.places[n]
        flows = self.flows if self.apart else self.flows._replace(committed=[])
        found, moved = self.steps.back(self.job.kind, given, self.chunks[n].kept, flows, answers)
        self.flows = moved._replace(gathered=[x for x in found.gathered if x is not None])
        for rows, into in zip(found.queries, self.made.queries, strict=True):
            put(rows, into, self.part, at)
        for rows, into in zip(found.inputs, self.made.inputs, strict=True):
            put(rows, into, self.part, told)
        for total, more in zip(self.totals, found.fade, strict=True):
            total.append(more)
        for way, sums in zip(self.tolls, found.ways, strict=True):
            _toll(way, sums, at)

    def commit(self, n: int) -> None:
        """From the committed weights behind the chunk to the running ones and those in front of it."""
        which = self.job.ends[n]
        if not self.apart or which is False:
            return
        for run, seen in zip(self.flows.running, self.flows.committed, strict=True):
            if which is True:
                run += seen
                continue
            assert isinstance(which, Tensor)
            flags = lifted(which, self.part, seen)
            run += torch.where(flags, seen, 0.0)
            seen.masked_fill_(flags, 0.0)
        self.apart = which is not True

    def wait(self, n: int) -> None:
        """Sums wait behind a chunk where it does not end."""
        which = self.job.ends[n]
        if which is True:
            self.flows = self.flows._replace(gathered=[])
        if isinstance(which, Tensor):
            for flow in self.flows.gathered:
                flow.masked_fill_(lifted(which, self.part, flow), 0.0)

    def _to_factors(self) -> None:
        """Gradients of the factors, collected from the last chunk to the first; zeros where none was used."""
        groups = zip(self.made.fade, self.totals, self.job.kind.wide, TAKEN, strict=True)
        for into, found, wide, taken in groups:
            rows = [t for t in reversed(found) if t is not None]
            if into is None:
                continue
            if not rows:
                into[self.part] = 0.0
                continue
            if not wide:
                rows = [torch.zeros_like(rows[0]) if t is None else t for t in reversed(found)]
            made = torch.cat(rows, -1) if wide else torch.stack(rows, -1)
            made = made.neg_() if taken else made
            into[self.part] = made.view(into[self.part].shape)


def _flow(like: Tensor, given: Tensor | None) -> Tensor:
    """The gradient at what is behind the last chunk, to be written over; zeros where there is none."""
    if given is None:
        return like.new_zeros(like.shape)
    return given.clone(memory_format=torch.contiguous_format)


def _toll(way: Following, sums: Sequence[Tensor | None], at: slice) -> None:
    """Gradients at the factors of one way and chunk into those of all chunks."""
    for into, found in zip(way, sums, strict=True):
        if into is not None and found is not None:
            place = into[:, :, at]
            place = place[..., : found.shape[-1]] if into is way.kernel else place
            place.copy_(found.view(place.shape))
