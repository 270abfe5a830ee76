"""The way back through one chunk of a memory whose gradients look at the last commit.

Shapes: `X` samples x heads, `C` tokens; see `Groups`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.runtime.c_calls import traced
from nldsl.runtime.held_gates import Fading, Following
from nldsl.runtime.held_live import LiveBias, LiveWeight, live_weights
from nldsl.runtime.held_parts import Groups, Kept, Kind, Pulled, sides

Pair = tuple[Tensor, Tensor]


class Flows(NamedTuple):
    """Gradients at weights and momenta behind a chunk, which become those in front of it: written over.

    `committed` is empty where those at the committed weights are gathered with those at the running ones;
    `anchored`, `shared` are sums over all chunks, of slow parameters `[..]`, or `[X, ..]` lane by lane.
    `gathered`: at the sums that wait behind the chunk, empty where nothing does; `Found` has those in front.
    """

    running: Sequence[Tensor]
    committed: Sequence[Tensor]
    slots: Sequence[Tensor]
    anchored: Sequence[Tensor]
    shared: Sequence[Tensor]
    gathered: Sequence[Tensor]


class Found(NamedTuple):
    """Gradients at rows `[X, C, d]`, at the factors `[X]`, of tokens `[X, C]` (`reach`, `kept` still with the
    sign of a step), at every way, and at the sums that waited in front; `None` where there is none.
    """

    queries: list[Tensor | None]
    inputs: list[Tensor | None]
    fade: list[Tensor | None]
    ways: list[list[Tensor | None]]
    gathered: list[Tensor | None]


def chunk_back(
    kind: Kind, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
) -> Found:
    """From gradients at the answers `[X, C, d]` (`None`: nothing flows) and `flows` to all others."""
    way = _Way(kind, given, kept, flows)
    pairs = kind.pairs(kept.learnt)
    seeds = way.committed(pairs) if kind.commits else way.written(pairs)
    queries = [way.answered(i, d, pairs, seeds) for i, d in enumerate(answers)]
    tolls = [toll.found() for toll in way.tolls]
    return Found(queries, way.learnt(seeds), way.totals, tolls, way.waited)


def reads_back(
    kind: Kind, given: Groups, kept: Kept, flows: Flows, answers: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """At the queries, where nothing flows from behind the chunk and reads look at committed weights."""
    way = _Way(kind, given, kept, flows)
    return [way.answered(i, d, [], []) for i, d in enumerate(answers)]


class _Way:
    """What the steps of the way back share."""

    def __init__(self, kind: Kind, given: Groups, kept: Kept, flows: Flows) -> None:
        self.kind, self.given, self.kept, self.flows = kind, given, kept, flows
        self.totals: list[Tensor | None] = []
        self.tolls = [Toll(way) for way in given.ways]
        self.waited: list[Tensor | None] = []

    def written(self, pairs: list[Pair]) -> list[Pair]:
        """Through the write: gradients at `x, dy` of every weight; `running`, `slots` move in front of it."""
        seeds: list[Pair] = []
        totals: list[list[Tensor]] = [[] for _ in Fading._fields]
        fade = self.given.fade
        assert fade.reach is not None
        for i, (run, pair) in enumerate(zip(self.flows.running, pairs, strict=True)):
            narrow, wide, matrix = sides(pair[0], pair[1], run)
            at_narrow = torch.bmm(wide, matrix)
            totals[1].append(torch.linalg.vecdot(at_narrow, narrow))
            to_wide = torch.bmm(narrow * fade.reach, matrix.mT)
            at_narrow.mul_(fade.reach)
            if fade.keep is not None:
                totals[0].append(torch.linalg.vecdot(run.flatten(1), self.given.running[i].flatten(1)))
            if self.kind.filtered:
                self._through_slot(i, pair, (at_narrow, to_wide), totals)
            if fade.keep is not None:
                self._faded(i, fade.keep, totals[0])
            seeds.append((at_narrow, to_wide) if narrow is pair[0] else (to_wide, at_narrow))
        self.totals = [sum(parts[1:], parts[0]) if parts else None for parts in totals]
        return seeds

    def committed(self, pairs: list[Pair]) -> list[Pair]:
        """The same through a rule at the commit and the sums it was given, `waited` of them in front."""
        fade, flows, seeds = self.given.fade, self.flows, list[Pair]()
        totals: list[list[Tensor]] = [[] for _ in Fading._fields]
        for i, (pair, behind) in enumerate(zip(pairs, self.given.gathered, strict=True)):
            steps = fade.reach is not None or fade.kept is not None
            flow = self._through_rule(i, totals) if steps else None
            if flows.gathered:
                flow = flows.gathered[i] if flow is None else flow.add_(flows.gathered[i])
            assert flow is not None, "nothing waits, and nothing steps"
            self.waited.append(None if behind is None else flow)
            narrow, wide, matrix = sides(pair[0], pair[1], flow)
            at_narrow, weighed = torch.bmm(wide, matrix), narrow
            if fade.weight is not None:
                totals[5].append(torch.linalg.vecdot(at_narrow, narrow))
                at_narrow, weighed = at_narrow.mul_(fade.weight), narrow * fade.weight
            to_wide = torch.bmm(weighed, matrix.mT)
            seeds.append((at_narrow, to_wide) if narrow is pair[0] else (to_wide, at_narrow))
        self.totals = [sum(parts[1:], parts[0]) if parts else None for parts in totals]
        return seeds

    def _through_rule(self, i: int, totals: list[list[Tensor]]) -> Tensor:
        """From weight and momentum behind one step to those in front of it, and to the sum of gradients."""
        fade, run, asked = self.given.fade, self.flows.running[i], self.kind.asked
        total = self.kept.gathered[i] if self.kept.gathered else None
        flow: Tensor | None = None
        if fade.reach is not None:
            if asked[1] and total is not None:
                totals[1].append(_dot(run, total))
            flow = run * fade.reach
        if self.kind.filtered:
            at_slot, slot = self.flows.slots[i], self.given.slots[i]
            assert fade.kept is not None
            assert fade.left is not None
            if fade.back is None:
                at_slot.add_(run)
            else:
                if asked[2] and total is not None:
                    totals[2].append(_dot(run, (slot * fade.left).addcmul_(total, fade.kept)))
                at_slot.addcmul_(run, fade.back)
            totals[3].append(_dot(at_slot, slot))
            if asked[4] and total is not None:
                totals[4].append(_dot(at_slot, total))
            flow = at_slot * fade.kept if flow is None else flow.addcmul_(at_slot, fade.kept)
            at_slot.mul_(fade.left)
        if fade.keep is not None:
            totals[0].append(_dot(run, self.given.running[i]))
            self._faded(i, fade.keep, totals[0])
        assert flow is not None
        return flow

    def _faded(self, i: int, keep: Tensor, totals: list[Tensor]) -> None:
        """Through `r + keep (W - r)`."""
        run, anchors = self.flows.running[i], self.given.anchors
        if not anchors:
            run.mul_(keep)
            return
        totals[-1] = totals[-1] - torch.linalg.vecdot(run.flatten(1), anchors[i].flatten(1))
        self.flows.anchored[i].addcmul_(run, 1.0 - keep)
        run.mul_(keep)

    def _through_slot(self, i: int, pair: Pair, seeds: Pair, totals: list[list[Tensor]]) -> None:
        at_narrow, to_wide = seeds
        fade, flow, run = self.given.fade, self.flows.slots[i], self.flows.running[i]
        slot = self.given.slots[i].flatten(1)
        narrow, wide, matrix = sides(pair[0], pair[1], flow)
        assert fade.kept is not None
        at_slot = torch.bmm(wide, matrix)
        totals[4].append(torch.linalg.vecdot(at_slot, narrow))
        to_wide.baddbmm_(narrow * fade.kept, matrix.mT)
        at_narrow.addcmul_(at_slot, fade.kept)
        totals[2].append(torch.linalg.vecdot(run.flatten(1), slot))
        totals[3].append(torch.linalg.vecdot(flow.flatten(1), slot))
        assert fade.left is not None
        assert fade.back is not None
        flow.mul_(fade.left).addcmul_(run, fade.back)

    def answered(self, i: int, flow: Tensor | None, pairs: list[Pair], seeds: list[Pair]) -> Tensor | None:
        """Through a read, to its query and the weights it saw."""
        read, given, kept = self.kind.functions[0], self.given, self.kept
        if flow is None:
            return None
        q = given.queries[i]
        if not self.kind.live:
            found = read.back(flow, q, *given.committed, *given.shared, *kept.reads[i])
            self._gather(read, found[1:])
            return found[0]
        way = self.kind.live[i]
        weights = live_weights(self.kind, given, given.ways[way], pairs, kept.live[i])
        seen = [old if isinstance(w, LiveBias) else w for w, old in zip(weights, kept.live[i], strict=True)]
        found = read.back(flow, q, *seen, *given.shared, *kept.reads[i])
        self._follow(self.tolls[way], weights, found[1:], seeds)
        return found[0]

    def _follow(
        self,
        toll: Toll,
        weights: list[LiveWeight | LiveBias],
        pairs: Sequence[Tensor | None],
        seeds: list[Pair],
    ) -> None:
        """To what running weights are made of: those in front of the chunk, `x, dy`, and the factors."""
        counts, rest = self.kind.functions[0].pairs, iter(pairs)
        for i, weight in enumerate(weights):
            groups = (self.flows.running, self.flows.slots, self.flows.anchored)
            flows = [group[i] for group in groups if group][: len(weight.states)]
            for _ in range(counts[i]):
                d, z = next(rest), next(rest)
                assert d is not None
                toll.add(*weight.gather(d, z, flows, seeds[i]))
        self._share(counts[len(weights) :], rest)

    def learnt(self, seeds: list[Pair]) -> list[Tensor | None]:
        """Through the gradients, to key, target and committed weights."""
        learn, biases, inputs = self.kind.functions[1], self.kind.biases, self.given.inputs
        given = [s for i, (x, dy) in enumerate(seeds) for s in ((x,) if i in biases else (x, dy))]
        found = learn.back(*given, *inputs, *self.given.committed, *self.given.shared, *self.kept.kept)
        self._gather(learn, found[len(inputs) :])
        return list(found[: len(inputs)])

    def _gather(self, function: Pulled, pairs: Sequence[Tensor | None]) -> None:
        """Add `dy^T x` of every pair to the gradient of its weight."""
        count_of, rest = function.pairs, iter(pairs)
        for i, count in enumerate(count_of[: self.kind.weights]):
            into = (self.flows.committed or self.flows.running)[i]
            for _ in range(count):
                dy, x = next(rest), next(rest)
                assert dy is not None
                if x is None:
                    into.add_(dy.sum(1, keepdim=True))
                else:
                    into.baddbmm_(dy.mT, x)
        self._share(count_of[self.kind.weights :], rest)

    def _share(self, counts: Sequence[int], rest: Iterator[Tensor | None]) -> None:
        """The same for slow parameters, which all samples and heads share."""
        for into, like, count in zip(self.flows.shared, self.given.shared, counts, strict=True):
            apart = into.dim() > like.dim()
            for _ in range(count):
                dy, x = next(rest), next(rest)
                assert dy is not None
                if x is None:
                    into.add_(dy.sum(1) if apart else dy.sum((0, 1)))
                elif apart:
                    into.baddbmm_(dy.mT, x)
                else:
                    into.addmm_(dy.flatten(0, 1).T, x.flatten(0, 1))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of every lane, `[X]`."""
    if traced():
        # Over the axes that they have, so that C does it in the loop that makes them.
        return (a * b).sum((1, 2))
    found: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return found


class Toll:
    """Gradients at the factors of one way, from every weight of every read on it."""

    def __init__(self, way: Following) -> None:
        self.way = way
        self.sums: list[Tensor | None] = [None, None, None]

    def add(self, kernel: Tensor, left: Sequence[Tensor]) -> None:
        """Of one weight: `kernel [X, C, C]`, and of what is left of each of its states `[X, C]`."""
        rest = list(left)
        self._to(0, kernel, 1)
        for which, sign in ((1, 1), (2, 1), (1, -1)):
            if self.way[which] is not None and rest:
                self._to(which, rest.pop(0), sign)

    def _to(self, which: int, more: Tensor, sign: int) -> None:
        total = self.sums[which]
        self.sums[which] = more if total is None else total.add_(more, alpha=sign)

    def found(self) -> list[Tensor | None]:
        """At `kernel`, `carried`, `lent`; `None` where nothing has flown."""
        return self.sums
