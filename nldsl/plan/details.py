"""What each lowering needs to know about the unit it took; filled in by the recognisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.calculus.expression import Expr, symbols
from nldsl.calculus.rule_states import StatesForm
from nldsl.catalog.widths import pass_width
from nldsl.spec.program import Apply, Memory, Read, Value, Write

ReadState = Literal["before", "decayed", "after"]


@dataclass(frozen=True)
class AttentionDetail:
    """One softmax memory: the pairs it appends, and its reads (with how many of the pairs stand below)."""

    memory: Memory
    pairs: tuple[tuple[Value, Value], ...]
    reads: tuple[tuple[Read, int], ...]
    turns: tuple[tuple[Apply, ...], ...] = ()
    """What is computed in front of every read, of the reads above it."""


@dataclass(frozen=True)
class SequentialDetail:
    """Any unit, token by token; `families` are the memories that run side by side as one batched memory."""

    memories: tuple[Memory, ...]
    families: tuple[tuple[str, ...], ...]
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
    turns: tuple[tuple[Apply, ...], ...] = ()
    """What is computed in front of every read, of the reads above it."""

    def width(self, device: str) -> int:
        """Tokens that are computed at once; gates without a logarithm take the form with whole kernels."""
        in_one_pass = self.erase is not None and (self.decay is None or self.decay_is_log)
        return pass_width(in_one_pass, device)


@dataclass(frozen=True)
class MomentumStep:
    """A filter: `m = beta m - rate g - erase (D x) x^T`, and the weight adds `read m`."""

    slot: str
    beta: Expr
    rate: Expr
    read: Expr
    erase: Expr | None = None


@dataclass(frozen=True)
class Dual:
    """The rule's memory `slot` makes the step, and the weight is `link` of it, with `symbol` for the memory.

    `seeded`: before the first step the memory is the weight itself.
    """

    slot: str
    link: Expr
    symbol: Expr
    seeded: bool


@dataclass(frozen=True)
class WeightStep:
    """How one term moves one weight of a chunked memory, its gradient `g = dy x^T` held at a base.

    `D_t = (a_t + keep - 1) D_{t-1} - erase (D_{t-1} x) x^T - rate g + read m`; absent parts are `None`.
    Coefficients are expressions over `x` and the rule's arguments.  `products`: how many outer
    products the gradient is a sum of; 0 for a bias, whose gradient is `dy`.  With a `dual`, `D` is that.
    `constant`: beside them stands a matrix that is the same for every token, of a penalty on the memory.
    """

    weight: str
    erase: Expr | None
    rate: Expr | None
    keep: Expr | None = None
    momentum: MomentumStep | None = None
    products: int = 1
    dual: Dual | None = None
    states: StatesForm | None = None
    constant: bool = False

    @property
    def erases(self) -> bool:
        """Whether anything is taken away along the input."""
        if self.states is not None:
            return bool(self.states.erases)
        return self.erase is not None or (self.momentum is not None and self.momentum.erase is not None)

    @property
    def counted(self) -> bool:
        """Whether a coefficient depends on the number of the step."""
        m = self.momentum
        found = [self.erase, self.rate, self.keep, *(() if m is None else (m.beta, m.rate, m.read, m.erase))]
        found += self.states.numbers() if self.states is not None else ()
        return any((s.role, s.name) == ("rule", "step") for e in found if e is not None for s in symbols(e))

    @property
    def plain(self) -> bool:
        """One outer product, and nothing between the gradient and the weight but a rate."""
        between = (self.momentum, self.keep, self.dual, self.states)
        one = self.products == 1 and not self.constant
        return one and self.rate is not None and all(b is None for b in between)


@dataclass(frozen=True)
class ChunkMemory:
    """One memory of a chunked unit: its write, and per term the step of each of its weights.

    `live`: reads see the running state inside the chunk.  A write `at commit` has no steps: its rule
    runs on what a chunk gathers.
    """

    memory: Memory
    write: Write
    steps: tuple[tuple[WeightStep, ...], ...]
    live: bool = False

    @property
    def plain(self) -> bool:
        """One term, one gradient per token, a number for a gate: the forms with a kernel of their own."""
        write = self.write
        one = len(write.terms) == 1 and write.terms[0].window == 1 and write.terms[0].weight is None
        return one and write.retain_axis == "scalar" and all(s.plain for t in self.steps for s in t)

    @property
    def counted(self) -> bool:
        """Whether some of its steps depend on their number."""
        return any(s.counted for t in self.steps for s in t)

    @property
    def mixed(self) -> bool:
        """Whether its weights and what its rules remember mix by numbers, as one filter of several states."""
        return any(s.states is not None for t in self.steps for s in t)

    @property
    def mirrored(self) -> bool:
        """Whether its rule steps in a dual, so that the weights follow from that behind every chunk."""
        return any(s.dual is not None for t in self.steps for s in t)


@dataclass(frozen=True)
class ChunkCache:
    """A softmax memory inside a chunked unit: attention over what it keeps and the pairs of the chunk.

    `pairs` are appended at every token, in order; a read comes with how many of its token's stand below it.
    """

    memory: Memory
    pairs: tuple[tuple[Value, Value], ...]
    reads: tuple[tuple[Read, int], ...]


@dataclass(frozen=True)
class ChunkDetail:
    """Memories whose gradients are held at a base, in chunks that end where a base or a commit moves.

    `grid` is the chunk of the loop: the greatest common divisor of the clocks.  `families` are the
    memories that run side by side as one batched memory.  `written_back`: the backward pass of a chunk is
    emitted too, else it is recorded.
    """

    grid: int
    members: tuple[ChunkMemory, ...]
    families: tuple[tuple[str, ...], ...]
    incoming: tuple[Value, ...]
    outgoing: tuple[Value, ...]
    caches: tuple[ChunkCache, ...] = ()
    written_back: bool = False

    @property
    def clock(self) -> Memory:
        """The memory whose count of tokens the chunks follow: one that has counted longest."""
        found = [m.memory for m in self.members] or [c.memory for c in self.caches]
        return next((m for m in found if m.reset == "sequence"), found[0])
