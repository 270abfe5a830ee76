"""What a program costs: parameters, state of a sequence, floating-point operations per token.

Formulas (all per token, of one sequence):

* *Operations* are those of products: a product of `[m, n]` with `[n]` is `2 m n`, `v k^T` into a state is
  `2 m n`.  Element-wise work is not counted; this is the convention of `torch.utils.flop_counter`.
* *Decode* is one token by the recurrence as written (`nldsl.view.flops`).  Attention adds
  `2 h (dk + dv)` for every token in the cache, `h` query heads.
* *Training* is three times the forward pass of the chosen lowering: forward, and twice as much backward.
  With `carry = "exact"` the inner gradient is one more pass back, and the task memories' own gradients: an
  upper bound, for nothing goes back below the first task memory.  Attention over a sequence of n
  tokens sees n / 2 of them on average; with a window, the window.
* *State*: numbers a sequence carries from call to call (running and committed weights, memories of rules,
  convolution tails, caches), without integer counters.  A task memory counts as `learn` holds it.  Bytes
  are of the type computed in; float32 unless said.
* *Parameters*: slow parameters, repeats written out, shared ones once.  The optimiser's work, once per
  step and not per token, is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod

from nldsl.graph.places import Place, own_once, places
from nldsl.graph.problems import memory_problems
from nldsl.graph.state_sizes import BYTES
from nldsl.plan.plan import Plan
from nldsl.spec.program import Apply, Block, Program, option
from nldsl.view.flops import memory_flops, statement_flops


@dataclass(frozen=True)
class Flops:
    """Operations per token: `fixed`, and `per_context` for every token of the context (attention)."""

    fixed: int = 0
    per_context: int = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.fixed + other.fixed, self.per_context + other.per_context)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.fixed * times, self.per_context * times)

    def at(self, context: int) -> int:
        """The number at a context of so many tokens."""
        return self.fixed + self.per_context * context


@dataclass(frozen=True)
class Cost:
    """Parameters, numbers of state and operations of one part of a program, all its copies together.

    `state` is counted in numbers, `state_per_token` grows with the sequence.  `training` at a context means
    a sequence of that length: its `per_context` holds the average of the triangle.
    """

    parameters: int = 0
    state: int = 0
    state_per_token: int = 0
    decode: Flops = Flops()
    forward: Flops = Flops()
    training: Flops = Flops()

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.state + other.state,
            self.state_per_token + other.state_per_token,
            self.decode + other.decode,
            self.forward + other.forward,
            self.training + other.training,
        )

    def state_bytes(self, context: int = 0, size: int = BYTES) -> int:
        """Bytes of state of one sequence after `context` tokens, `size` bytes a number."""
        return (self.state + self.state_per_token * context) * size


@dataclass(frozen=True)
class Costs:
    """The cost of a program: by memory (id), by block (path where it is called), and together."""

    memories: dict[str, Cost] = field(default_factory=dict)
    blocks: dict[str, Cost] = field(default_factory=dict)

    @property
    def total(self) -> Cost:
        """Everything together."""
        return sum([*self.memories.values(), *self.blocks.values()], Cost())


def cost_of(program: Program, plan: Plan | None = None) -> Costs:
    """The cost of `program`; without a plan training is counted token by token.

    Example:
        >>> from nldsl.graph import open_program
        >>> cost = cost_of(open_program("swiglu", block="swiglu", dim=8)).total
        >>> cost.parameters, cost.decode.fixed, cost.training.fixed
        (576, 1152, 3456)
    """
    states = {p.id: p for p in memory_problems(program)}
    segment = min(
        (p.clock.every for p in states.values() if p.kind == "task memory" and p.clock.unit == "tokens"),
        default=0,
    )
    exact = program.train is not None and program.train.carry == "exact" and segment > 0
    passes = 4 if exact else 3
    memories: dict[str, Cost] = {}
    blocks: dict[str, Cost] = {}
    for block, place in places(program.root, Place.root(program)):
        for memory in block.memories:
            id = place.memory_id(memory)
            own = memory_flops(block, memory, plan, segment)
            starts = sum(prod(p.shape) for p in memory.initial if p is not None and not p.fixed)
            problem = states[id]
            cost = Cost(
                parameters=starts,
                state=problem.state_bytes // BYTES,
                state_per_token=problem.bytes_per_token // BYTES,
                decode=Flops(own.decode, own.context),
                forward=Flops(own.forward, own.context // 2),
                training=Flops(own.pieces, own.context // 2) * (passes + (passes > 3 and own.task)),
            )
            memories[id] = _times(cost, place.copies)
        static = _static(block)
        static = replace(static, training=static.forward * passes)
        blocks[place.home] = blocks.get(place.home, Cost()) + _times(static, place.copies)
    return Costs(memories, {home: cost for home, cost in blocks.items() if cost != Cost()})


def _times(cost: Cost, copies: int) -> Cost:
    return Cost(
        cost.parameters * copies,
        cost.state * copies,
        cost.state_per_token * copies,
        cost.decode * copies,
        cost.forward * copies,
        cost.training * copies,
    )


def _static(block: Block) -> Cost:
    """A block without its memories: primitives, hidden state, slow parameters."""
    starts = {p.path for m in block.memories for p in m.initial if p is not None}
    flops = Flops(sum(statement_flops(s) for s in block.body if isinstance(s, Apply)))
    return Cost(
        parameters=sum(prod(p.shape) for p in own_once(block) if p.path not in starts),
        state=sum(_hidden(block)),
        decode=flops,
        forward=flops,
    )


def _hidden(block: Block) -> Iterator[int]:
    """What `conv` and `shift` remember; counters are no numbers of state."""
    for step in block.body:
        if not isinstance(step, Apply):
            continue
        if step.op == "conv":
            size, window = step.parameters[0].shape
            yield (window - 1) * size
        if step.op == "shift":
            by = option(step.options, "by", 1)
            assert isinstance(by, int)
            yield by * prod(step.out.shape)
