"""The plan: for every block, which lowering computes which statements, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Program

LoweringName = str
"""static, attention, a form of a matrix memory, held, chunk, task, sequential, or one that was added.

`recurrence` only names the family in a verdict that refuses: any other of its forms is more exact.
"""

Recogniser = Callable[[Block, tuple[int, ...]], "tuple[Any, str] | Refusal"]
"""`recognise(block, statements)`: (what the lowering has to know, why it takes the unit), or why not."""


@dataclass(frozen=True)
class Lowering:
    """A lowering that is one file, in `nldsl/lowerings/forms` or in a component.

    `recognise` is asked about every unit that holds a memory; `lower(code, unit)` appends the code of a unit
    to the `forward` of its block: `code` is a `nldsl.lowerings.blocks.BlockCode`, `unit.detail` what
    `recognise` gave.  `first`: asked before the lowerings of the compiler, else before the form that goes
    token by token.
    """

    name: str
    recognise: Recogniser
    lower: Callable[[Any, Any], None]
    first: bool = False


@dataclass(frozen=True)
class Verdict:
    """What one lowering said about one unit: whether it takes it, and the reason.

    `family` is the recogniser that spoke; `lowering` may be a form of it with a name of its own.
    """

    lowering: LoweringName
    accepted: bool
    reason: str
    family: str = ""


@dataclass(frozen=True)
class Unit:
    """A strongly connected part of a block: statements that have to be computed together.

    `statements` index `block.body` in program order.  `verdicts` holds every lowering that was
    asked, the chosen one included.
    """

    statements: tuple[int, ...]
    memories: tuple[str, ...]
    lowering: LoweringName
    reason: str
    verdicts: tuple[Verdict, ...] = ()
    detail: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class BlockPlan:
    """The units of one block, in an order in which they can be computed.

    `original` is the block of the program, `block` the same with the logarithms of its gates.
    """

    original: Block
    block: Block
    class_name: str
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Target:
    """What to compile for.

    lowering: `auto` takes the fastest form that accepts a unit, `sequential` the per-token form.
    checkpoint: recompute each chunk in the backward pass instead of saving it; a backward pass that is
    written out is taken instead.
    family: taken by every unit that this family of lowerings accepts; the others take their fastest.
    """

    lowering: Literal["auto", "sequential"] = "auto"
    checkpoint: bool = False
    family: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything `emit` needs: one plan per distinct block, callees first."""

    program: Program
    target: Target
    blocks: tuple[BlockPlan, ...]

    def of(self, block: Block) -> BlockPlan:
        """The plan of `block`."""
        return next(p for p in self.blocks if p.original == block)

    def rows(self) -> tuple[tuple[str, str, str, str], ...]:
        """(class, memories, lowering, reason) of every unit that holds a memory."""
        return tuple(
            (p.class_name, ", ".join(u.memories), u.lowering, u.reason)
            for p in self.blocks
            for u in p.units
            if u.memories
        )

    def alternatives(self) -> tuple[str, ...]:
        """The families that accept a unit which an earlier one computes, in the order they are asked in."""
        units = (u for p in self.blocks for u in p.units)
        return tuple(
            dict.fromkeys(v.family for u in units for v in [v for v in u.verdicts if v.accepted][1:])
        )
