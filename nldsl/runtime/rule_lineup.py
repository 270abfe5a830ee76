"""The weights that one call of a loop in C takes, known from step to step."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from operator import is_, itemgetter
from typing import TYPE_CHECKING

from torch import Tensor

from nldsl.runtime.c_calls import threads
from nldsl.runtime.native import Step
from nldsl.runtime.rule_gradients import zeroing
from nldsl.runtime.rule_numbers import Numbers
from nldsl.runtime.rule_where import Where

if TYPE_CHECKING:
    from nldsl.runtime.rule_bundle import Place

States = Mapping[Tensor, Mapping[str, Tensor]]


class Lineup:
    """The weights that one call of a loop in C takes, and where everything of them lies.

    A call for each costs about ten microseconds, as much as a loop over 15,000 elements; to ask anew at
    every step where things lie costs as much as a tenth of the loop, for it finds them out of the cache.
    So a lineup stays from step to step while all is where it was, and asks that in few calls.
    """

    def __init__(self, weights: Sequence[Tensor], places: Sequence[Place], states: States) -> None:
        first, count = places[0], len(places)
        assert first.loop is not None
        self.kernel, self.kind, self.loop = first.kernel, first.kind, first.loop
        self.weights, self.slots = list(weights), [states[p] for p in weights]
        names = [name for name, _ in first.named]
        self.named = itemgetter(*(names if len(names) > 1 else 2 * names))
        self.held = self._held()
        self.taken = False
        self.where = Where([*self.weights, *self.held])
        self.counts, self.first = Where([place.count for place in places]), first.counter
        self.sizes = (ctypes.c_long * count)(*(place.size for place in places))
        self.arrived = Where(weights)  # gradients are like their weights; they are not kept
        self.gradients = self.arrived.places.buffer_info()[0]
        columns = list(zip(*(place.addresses for place in places), strict=True))
        self.columns = [(ctypes.c_void_p * count)(*column) for column in columns]
        addresses = [ctypes.addressof(column) for column in self.columns]
        addresses.insert(1, self.gradients)
        self.arrays = (ctypes.c_void_p * len(addresses))(*addresses)

    def takes(self, params: Sequence[Tensor], states: States) -> bool:
        """Whether these have gradients, are at one step and lie where they lay; notes where gradients are."""
        if self.taken:  # else nobody knows whether it comes to that
            self.where.fetch()
        gradients = [g for p in params if (g := p.grad) is not None]
        if len(gradients) < len(params):
            params = [p for p in params if p.grad is not None]
        if not _same(params, self.weights) or not self._keeps(states):
            return False
        self.taken = self.where.stay() and self.counts.level() and self.arrived.note(gradients)
        return self.taken

    def found(self) -> list[tuple[Tensor, Tensor]]:
        """Its weights with their gradients."""
        return [(p, g) for p in self.weights if (g := p.grad) is not None]

    def _keeps(self, states: States) -> bool:
        """Whether the memories are the same objects; to look each weight up takes longer than all else."""
        plain = _same(list(states), self.weights) and _same(list(states.values()), self.slots)
        if not plain and not _same([states[p] for p in self.weights], self.slots):
            return False
        return _same(self._held(), self.held)

    def _held(self) -> list[Tensor]:
        """What is called as the memories are; whatever else a user keeps there is left alone."""
        try:
            return list(chain.from_iterable(map(self.named, self.slots)))
        except KeyError:
            return []

    def begin(self, gradients: Iterable[Tensor]) -> None:
        """Note where the gradients of the first step are."""
        self.arrived.places[:] = array("Q", map(Tensor.data_ptr, gradients))

    def tick(self) -> float:
        """Count one application of every weight."""
        self.counts.tick()
        return self.first.value

    def run(self, numbers: Numbers, zero: bool) -> bool:
        """The loop over all of them; whether it has taken something as zero that is not finite."""
        loop = (self.zeroing if zero else None) or self.loop
        return loop(len(self.weights), self.sizes, self.arrays, numbers.plain(), threads()) != 0

    @cached_property
    def zeroing(self) -> Step | None:
        """The same loop for the policy `zero`, if there is one."""
        return zeroing(self.kernel, self.kind)


def _same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))
