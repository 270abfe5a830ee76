"""The memories that rules keep for every weight of a memory, and their places in the state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nldsl.catalog.values import Shape
from nldsl.spec.program import Memory, Parameter, Slot, Term, Write


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
        shape = slot.shape_beside(weight.shape, i)
        key = f"{slot.name}{suffix}.{weight.name}"
        yield SlotPlace(term, slot.name, i, key, shape, slot.initial)
        if slot.visible and slot.clock is not None:
            twin = f"{slot.visible}{suffix}.{weight.name}"
            yield SlotPlace(term, slot.visible, i, twin, shape, slot.initial, key, slot.clock.every)


def numbered_terms(writes: Sequence[Write]) -> Iterator[tuple[int, Write, Term]]:
    """Every term that writes a memory, numbered in program order."""
    number = 0
    for write in writes:
        for term in write.terms:
            yield number, write, term
            number += 1


def bases_of(memory: Memory, writes: Sequence[Write]) -> dict[str, int]:
    """The bases a memory keeps beside its running and committed weights: name in the state, and clock."""
    clocks = sorted({w.base_every for w in writes} - {1, memory.clock.every})
    return {("base" if len(clocks) == 1 else f"base_{b}"): b for b in clocks}


def origin_of(memory: Memory, memories: Sequence[Memory]) -> Memory:
    """The memory whose parameters a memory starts from (`init M2`): the end of that chain."""
    named = {m.name: m for m in memories}
    while memory.init_from is not None:
        memory = named[memory.init_from]
    return memory


def restarts_from(memory: Memory) -> str | None:
    """The memory whose visible state every reset of this one starts from, if it resets by its own clock."""
    return memory.init_from if memory.reset == "tokens" else None
