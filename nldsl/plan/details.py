"""What each lowering needs to know about the unit it took; filled in by the recognisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.calculus.expression import Expr
from nldsl.spec.program import Memory, Read, Term, Value, Write

ReadState = Literal["before", "decayed", "after"]


@dataclass(frozen=True)
class AttentionDetail:
    """One softmax memory: what it appends, and its reads (`True`: stands above the write)."""

    memory: Memory
    key: Value
    value: Value
    reads: tuple[tuple[Read, bool], ...]


@dataclass(frozen=True)
class SequentialDetail:
    """Any unit, token by token."""

    memories: tuple[Memory, ...]
    incoming: tuple[Value, ...]
    outgoing: tuple[Value, ...]


@dataclass(frozen=True)
class RecurrenceDetail:
    """A matrix memory written every token: `M_t = a_t M_{t-1} - erase_t (F_t k_t) k_t^T + add_t k_t^T`.

    `erase` (`None`: class D) and `add` are expressions over the symbols `key`, `target` and the rule's
    arguments.  `feedback` says what the erase term and the gradient see: `M_{t-1}` (raw) or
    `a_t M_{t-1}` (decayed).
    """

    memory: Memory
    write: Write
    decay: Value | None
    decay_is_log: bool
    feedback: Literal["raw", "decayed"]
    reads: tuple[tuple[Read, ReadState], ...]
    erase: Expr | None
    add: Expr


@dataclass(frozen=True)
class WeightStep:
    """How one weight of a chunked memory steps: `D_t = a_t D_{t-1} - erase (D_{t-1} x) x^T - rate dy x^T`.

    `erase` (`None`: no such term) and `rate` are expressions over `x` and the rule's arguments.
    """

    weight: str
    erase: Expr | None
    rate: Expr


@dataclass(frozen=True)
class ChunkMemory:
    """One memory of a chunked unit: its write, and the step of each of its weights."""

    memory: Memory
    write: Write
    term: Term
    steps: tuple[WeightStep, ...]


@dataclass(frozen=True)
class ChunkDetail:
    """Memories whose reads and gradients all see the state at the last commit.

    `grid` is the chunk of the loop: the greatest common divisor of the clocks.  `families` are the
    memories that run side by side as one batched memory.
    """

    grid: int
    members: tuple[ChunkMemory, ...]
    families: tuple[tuple[str, ...], ...]
    incoming: tuple[Value, ...]
    outgoing: tuple[Value, ...]
