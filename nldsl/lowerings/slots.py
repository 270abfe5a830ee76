"""The memories that rules keep for every weight of a memory, and their places in the state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nldsl.catalog.values import Shape
from nldsl.spec.program import Memory, Parameter, Slot, Write


@dataclass(frozen=True)
class SlotPlace:
    """One slot of the rule of one term, for one weight.

    `name` is what the rule calls it.  `every` is set for the visible twin of a slot on a slow clock: what
    the slot held behind the last multiple of `every` steps.
    """

    term: int
    name: str
    weight: int
    key: str
    shape: Shape
    initial: Parameter | None
    twin_of: str = ""
    every: int = 0


def slot_places(memory: Memory, writes: Sequence[Write]) -> tuple[SlotPlace, ...]:
    """Every slot of every term that writes `memory`; terms are numbered in program order.

    The key in the state is `m.W`; slots of the second term are called `m_2`, and so on.
    """
    terms = [t for w in writes for t in w.terms]
    return tuple(p for n, t in enumerate(terms) for s in t.rule.slots for p in _places(memory, n, s))


def _places(memory: Memory, term: int, slot: Slot) -> Iterator[SlotPlace]:
    assert memory.function is not None
    suffix = f"_{term + 1}" if term else ""
    for i, weight in enumerate(memory.function.weights):
        shape = weight.shape if slot.shape is None else slot.shape
        key = f"{slot.name}{suffix}.{weight.name}"
        yield SlotPlace(term, slot.name, i, key, shape, slot.initial)
        if slot.visible and slot.clock is not None:
            twin = f"{slot.visible}{suffix}.{weight.name}"
            yield SlotPlace(term, slot.visible, i, twin, shape, slot.initial, key, slot.clock.every)
