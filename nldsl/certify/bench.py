"""One program on one set of clocks, compiled, beside what the interpreter said about it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nldsl.certify.align import Place, align, places
from nldsl.certify.clocks import Clocks, memories_below, token_clocks
from nldsl.certify.compare import Pair
from nldsl.certify.draws import draw_inputs, generator
from nldsl.certify.oracle import Forward
from nldsl.diagnostics import SpecError
from nldsl.driver.compile import emit, plan_of
from nldsl.emit.loader import load_module
from nldsl.plan.details import RecurrenceDetail
from nldsl.plan.matrix_form import MatrixDetail
from nldsl.plan.plan import Plan
from nldsl.reference import State
from nldsl.runtime.model import Layer
from nldsl.runtime.recurrence import linear_recurrence
from nldsl.runtime.state import State as CompiledState
from nldsl.spec.program import Program, option

Build = Callable[[Plan], Layer]
"""Makes a module of a plan; tests put faults in here."""

SHORTEST = 12
"""Tokens compared at least."""


def build_module(plan: Plan) -> Layer:
    """The compiled module of a plan, as `compile` makes it."""
    module: Layer = load_module(emit(plan), f"nldsl_{plan.program.name}").build(0)
    return module


def listed_lengths(clocks: Sequence[int]) -> set[int]:
    """0, 1, and for every clock C: C - 1, C, C + 1, 3 C + 2.

    Example:
        >>> sorted(listed_lengths([4]))
        [0, 1, 3, 4, 5, 14]
    """
    found = {0, 1}
    for clock in clocks:
        found |= {clock - 1, clock, clock + 1, 3 * clock + 2}
    return found


def forward_lengths(program: Program, plan: Plan) -> tuple[int, ...]:
    """The lengths `forward` is compared at: around its clocks, its windows, and the chunks of its kernels."""
    windows = [option(m.options, "window") for m in memories_below(program.root) if m.function is None]
    clocks = {1, *token_clocks(program).forward, *(w for w in windows if isinstance(w, int) and w > 0)}
    found = listed_lengths(sorted(clocks)) | {SHORTEST}
    kernels = (RecurrenceDetail, MatrixDetail)
    if any(isinstance(unit.detail, kernels) for block in plan.blocks for unit in block.units):
        chunk = int(inspect.signature(linear_recurrence).parameters["chunk"].default)
        found |= {chunk - 1, chunk, chunk + 1, 2 * chunk + 2}
    return tuple(sorted(found))


@dataclass
class Bench:
    """What every check of `forward` works on.

    `values` are the parameters as the interpreter has them (leaves, so that gradients can be asked
    for); the compiled module holds copies under the same paths.
    """

    program: Program
    plan: Plan
    build: Build
    seed: int
    values: dict[str, Tensor]
    reference: Forward
    lengths: tuple[int, ...]
    module: Layer = field(init=False)
    places: tuple[Place, ...] = field(init=False)
    initial: dict[str, Tensor] = field(init=False)
    """What the parameters are before `values` replace them."""

    def __post_init__(self) -> None:
        shorter = (n for n in self.lengths if n < self.reference.tokens)
        self.lengths = (*shorter, self.reference.tokens)
        self.places = places(self.program)
        self.module = self.load(self.plan)

    def load(self, plan: Plan) -> Layer:
        """A module of `plan` in float64 with the parameters of this bench.

        Errors: `KeyError` if it does not have exactly the parameters of the program.
        """
        module: Layer = self.build(plan).to(dtype=torch.float64)
        found = module.drawn_paths()
        self.initial = {path: p.detach().clone() for path, p in found.items()}
        if found.keys() != self.values.keys():
            odd = sorted(found.keys() ^ self.values.keys())
            raise KeyError(f"the compiled parameters differ from the program's in `{odd[0]}`")
        with torch.no_grad():
            for path, parameter in found.items():
                if parameter.shape != self.values[path].shape:
                    raise KeyError(f"`{path}` has shape {list(parameter.shape)} in the compiled module")
                parameter.copy_(self.values[path])
        return module

    @property
    def learned(self) -> list[str]:
        """Names of the values that have a gradient: all but constants (`init fixed`)."""
        own = self.module.parameter_paths()
        return [path for path in self.values if path in own]

    @property
    def tokens(self) -> int:
        """The longest length that is compared."""
        return self.reference.tokens

    @property
    def batch(self) -> int:
        """How many sequences."""
        return self.reference.batch

    @property
    def clocks(self) -> Clocks:
        """The clocks of the program as it is checked."""
        return token_clocks(self.program)

    def generator(self, purpose: str) -> torch.Generator:
        """Numbers for one purpose."""
        return generator(self.seed, purpose)

    def part(self, start: int, end: int) -> tuple[Tensor, ...]:
        """The inputs from token `start` to `end`."""
        return tuple(s[:, start:end] for s in self.reference.inputs)

    def noise(self, tokens: int, purpose: str, batch: int | None = None) -> tuple[Tensor, ...]:
        """Other inputs of the same kinds."""
        return draw_inputs(self.program, batch or self.batch, tokens, self.seed, purpose)

    def splits(self, count: int, purpose: str, tokens: int | None = None) -> Iterator[tuple[int, ...]]:
        """Random ends of calls, the last one being the end of the sequence."""
        source, end = self.generator(purpose), self.tokens if tokens is None else tokens
        for _ in range(count):
            inner = torch.randint(0, end + 1, (min(4, end),), generator=source).tolist()
            yield (*sorted(set(inner) - {0, end}), end)

    def outputs(self, got: Sequence[Tensor], start: int, end: int) -> list[Pair]:
        """Compiled outputs beside those of the interpreter."""
        return [
            Pair(value.name, "output", "", y, want[:, start:end])
            for value, y, want in zip(self.program.root.outputs, got, self.reference.outputs, strict=True)
        ]

    def states(self, got: CompiledState, tokens: int) -> list[Pair]:
        """The compiled state beside that of the interpreter behind `tokens` tokens."""
        return align(self.places, got, self.reference.states[tokens])

    def aligned(self, got: CompiledState, want: State) -> list[Pair]:
        """The compiled state beside any state of the interpreter."""
        return align(self.places, got, want)

    @cached_property
    def steps(self) -> tuple[list[tuple[Tensor, ...]], list[CompiledState]]:
        """The compiled program token by token: outputs of every token, states in front and behind."""
        rows, states = [], [self.module.init_state(self.batch)]
        with torch.no_grad():
            for t in range(self.tokens):
                y, state = call(self.module, self.part(t, t + 1), states[-1])
                rows.append(y)
                states.append(state)
        return rows, states


def call(
    module: Layer,
    inputs: Sequence[Tensor],
    state: CompiledState | None = None,
    mask: Tensor | None = None,
) -> tuple[tuple[Tensor, ...], CompiledState]:
    """A compiled module on input streams; outputs always as a tuple."""
    y: Any
    y, new = module(*inputs, state=state, mask=mask)
    return (y if isinstance(y, tuple) else (y,)), new


def call_in_parts(
    module: Layer, inputs: Sequence[Tensor], cuts: Sequence[int]
) -> tuple[tuple[Tensor, ...], CompiledState]:
    """The same in several calls that end at `cuts`."""
    state: CompiledState | None = None
    rows: list[tuple[Tensor, ...]] = []
    for start, end in zip((0, *cuts), cuts, strict=False):
        y, state = call(module, tuple(s[:, start:end] for s in inputs), state)
        rows.append(y)
    assert state is not None
    return tuple(torch.cat([row[i] for row in rows], 1) for i in range(len(rows[0]))), state


def other_forms(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Every other way to compute the program, named: each family that accepts a unit of it, token by token
    wherever that is possible, and with chunks recomputed in the backward pass."""
    program = plan.program
    for family in plan.alternatives():
        yield (
            f"{family} form",
            _sequential(plan) if family == "sequential" else plan_of(program, family=family),
        )
    if any(unit.lowering in ("chunk", "held") for block in plan.blocks for unit in block.units):
        yield "checkpointed form", plan_of(program, checkpoint=True)


def _sequential(plan: Plan) -> Plan:
    """Everything token by token, or what can be if some unit cannot."""
    try:
        return plan_of(plan.program, lowering="sequential")
    except SpecError:
        return plan_of(plan.program, family="sequential")
