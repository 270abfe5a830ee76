"""All chunks of some samples, one behind the other, and the way back through them (see `held_pass`).

Shapes: `B` some samples, `H` heads, `X = B H`, `L` slots of all chunks, `C` tokens of one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.runtime.held_back import Flows, Found, chunk_back
from nldsl.runtime.held_chunk import Passed, pass_chunk
from nldsl.runtime.held_gates import Following
from nldsl.runtime.held_parts import (
    CACHE,
    WIDE,
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

    def forward(self, kind: Kind, given: Groups, tracked: bool) -> Passed:
        """See `pass_chunk`."""
        return pass_chunk(kind, given)

    def back(
        self, kind: Kind, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
    ) -> tuple[Found, Flows]:
        """See `chunk_back`; the gradients in front of the chunk, as they are now."""
        return chunk_back(kind, given, kept, flows, answers), flows


PLAIN = Steps()


def forward_part(
    steps: Steps, job: Job, given: Groups, part: slice, answers: list[Tensor]
) -> tuple[list[Chunk], list[Tensor]]:
    """What the way back needs of all chunks, and the weights behind them; fills `answers [B, L, H, d]`."""
    joined, chunks, factors = steps.joined, [], job.cut(given, part, steps.joined)
    running, committed, slots, anchors = ([lanes(w[part], joined) for w in group] for group in given[4:8])
    for n, (at, told) in enumerate(job.slices()):
        now = Groups(
            [piece(x, part, at, joined) for x in given.queries],
            [piece(x, part, told, joined) for x in given.inputs],
            *factors[n],
            running,
            committed,
            slots,
            anchors,
            given.shared,
        )
        made = steps.forward(job.kind, now, job.tracked)
        for i, answer in enumerate(made.answers):
            if len(answers) <= i:
                answers.append(answer.new_empty(*given.queries[0].shape[:3], answer.shape[-1]))
            put(answer, answers[i], part, at)
        if job.tracked:
            chunks.append(Chunk([*now.queries], [*now.inputs], running, committed, slots, made.kept))
        running, slots = made.running, made.slots
        committed = [chosen(job.ends[n], part, new, old) for new, old in zip(running, committed, strict=True)]
    return chunks, [*running, *committed, *slots]


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
    ) -> None:
        self.steps, self.job, self.part, self.given, self.made = steps, job, part, given, made
        count, queries = job.kind.weights, job.kind.queries
        self.answers = grads[:queries]
        flowing = [
            torch.zeros_like(w[part]) if g is None else g[part].clone(memory_format=torch.contiguous_format)
            for w, g in zip((*made.running, *made.committed, *made.slots), grads[queries:], strict=True)
        ]
        flows = [lanes(w, steps.joined) for w in flowing]
        running, committed, slots = (flows[i : i + count] for i in range(0, 3 * count, count))
        anchored = [lanes(torch.zeros_like(w[part]), steps.joined) for w in made.anchors]
        self.flows = Flows(running, committed, slots, anchored, self._shared())
        self.anchors = [lanes(w[part], steps.joined) for w in given.anchors]
        self.apart = True
        """Whether gradients at the committed weights are held apart from those at the running ones."""
        self.factors = job.cut(given, part, steps.joined)
        self.totals: list[list[Tensor | None]] = [[], [], [], [], []]
        self.tolls = [Following(*(None if x is None else x[part].zero_() for x in way)) for way in made.ways]  # type: ignore[arg-type]

    def _shared(self) -> list[Tensor]:
        if self.steps.joined:
            return list(self.made.shared)
        samples, heads = self.made.running[0][self.part].shape[:2]
        return [x.new_zeros(samples, heads, *x.shape) for x in self.made.shared]

    def back(self, chunks: list[Chunk]) -> None:
        """Fill `made` with the gradients of everything that was given."""
        places = self.job.slices()
        for n in range(len(chunks) - 1, -1, -1):
            self._commit(self.job.ends[n])
            before = self.job.ends[n - 1] if n else False
            if not self.apart and before is not True:
                zeros = [torch.zeros_like(w) for w in self.flows.running]
                self.flows, self.apart = self.flows._replace(committed=zeros), True
            self._chunk(n, chunks[n], *places[n])
        made, flows = self.made, self.flows
        groups = (made.running, made.committed, made.slots, made.anchors)
        for group, flow in zip(groups, flows, strict=False):
            for into, g in zip(group, flow, strict=True):
                into[self.part] = g.view(into[self.part].shape)
        if not self.steps.joined:
            for into, g in zip(made.shared, flows.shared, strict=True):
                into.add_(g.sum((0, 1)))
        self._to_factors()

    def _chunk(self, n: int, chunk: Chunk, at: slice, told: slice) -> None:
        """Through one chunk."""
        joined, part, made = self.steps.joined, self.part, self.made
        weights = (chunk.running, chunk.committed, chunk.slots, self.anchors, self.given.shared)
        given = Groups(chunk.queries, chunk.inputs, *self.factors[n], *weights)
        answers = [None if g is None else piece(g, part, at, joined) for g in self.answers]
        flows = self.flows if self.apart else self.flows._replace(committed=[])
        found, self.flows = self.steps.back(self.job.kind, given, chunk.kept, flows, answers)
        for rows, into in zip(found.queries, made.queries, strict=True):
            put(rows, into, part, at)
        for rows, into in zip(found.inputs, made.inputs, strict=True):
            put(rows, into, part, told)
        for total, more in zip(self.totals, found.fade, strict=True):
            total.append(more)
        for way, sums in zip(self.tolls, found.ways, strict=True):
            _toll(way, sums, at)

    def _commit(self, which: bool | Tensor) -> None:
        """From the committed weights behind the chunk to the running ones and those in front of it."""
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

    def _to_factors(self) -> None:
        """Gradients of the factors, collected from the last chunk to the first."""
        for into, found, wide in zip(self.made.fade, self.totals, WIDE, strict=True):
            if into is None:
                continue
            rows = [t for t in reversed(found) if t is not None]
            made = torch.cat(rows, -1).neg_() if wide else torch.stack(rows, -1)
            into[self.part] = made.view(into[self.part].shape)


def _toll(way: Following, sums: Sequence[Tensor | None], at: slice) -> None:
    """Gradients at the factors of one way and chunk into those of all chunks."""
    for into, found in zip(way, sums, strict=True):
        if into is not None and found is not None:
            place = into[:, :, at]
            place = place[..., : found.shape[-1]] if into is way.kernel else place
            place.copy_(found.view(place.shape))
