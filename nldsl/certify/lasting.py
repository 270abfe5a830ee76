"""Long sequences: how rounding grows over thousands of tokens, and whether memories stay bounded and alive.

"No blow-up" alone is a bad test: a memory that has collapsed, or that nobody reads, passes it.  So every
memory must also still move at the end, and forgetting what it has learned must change the output.
All of it runs compiled, on the clocks as they are written and the parameters a model starts with.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nldsl.certify.align import Place, places
from nldsl.certify.bench import Build, call
from nldsl.certify.certificate import Growth
from nldsl.certify.checks import MARGIN
from nldsl.certify.compare import Finding, distance
from nldsl.certify.draws import draw_inputs, generator
from nldsl.certify.forget import entry, forgotten
from nldsl.diagnostics import SpecError
from nldsl.driver.compile import plan_of
from nldsl.runtime.model import Layer
from nldsl.runtime.state import State, flatten
from nldsl.spec.program import Block, Call, Program, Repeat, Update, Write

TOKENS = 16_384
PIECE = 2_048
"""Tokens of a call: states are looked at behind each."""
LENGTHS = (256, 1_024, 4_096)
TAIL = 16
"""Outputs compared: the last so many tokens of each length."""
EXPONENT = 1.1
"""A state may grow like T (a sum of everything does), not faster."""
NOTICED = 1e-4
"""Relative change of the next outputs when one memory forgets: rounding in float32 makes 1e-6."""
GONE = 1e-12
"""The norm of a memory in which nothing is left."""
MATTERS = 0.01
"""Relative change of the outputs when nothing is written at all."""
PRECISIONS: tuple[tuple[str, torch.dtype, float], ...] = (
    ("float32", torch.float32, 0.01),
    ("bfloat16", torch.bfloat16, 0.9),
)
"""Names, types, and what the outputs may be off at any length: outputs that are zero are off by one."""
LOST = {
    "float32": "rounding takes them over: smaller rates, or keys and targets of length one",
    "bfloat16": "next to nothing is left of what float32 makes of the same parameters: keep those in float32 "
    "and lower the products alone (`torch.autocast`, `train --precision bfloat16`), states stay wide then",
}
CALMER = (
    'a smaller rate, one that divides by the square of its input (`rate = "normalised"`), keys and targets '
    "of length one, or `retain`; `nldsl check` names writes that can blow up"
)
GROWN = f"it blows up; {CALMER}"


@dataclass
class Endurance:
    """A program on its own clocks, its module as it starts, in float64."""

    program: Program
    build: Build
    seed: int

    def __post_init__(self) -> None:
        self.plan = plan_of(self.program)
        self.module: Layer = self.build(self.plan).to(torch.float64)
        self.places = tuple(p for p in places(self.program) if p.kind in ("memory", "cache"))

    def inputs(self, tokens: int, purpose: str) -> tuple[Tensor, ...]:
        """One sequence of random input."""
        return draw_inputs(self.program, 1, tokens, self.seed, purpose)


def rounding(subject: Endurance, name: str) -> tuple[list[Growth], Iterator[Finding]]:
    """A low precision against float64, both compiled: relative error of the last outputs by length.

    Some programs amplify whatever moves them.  What float64 makes of parameters that differ in the last
    digit of the low precision is measured, and `MARGIN` times as much is allowed.
    """
    _, dtype, bound = next(p for p in PRECISIONS if p[0] == name)
    found: list[Growth] = []

    def findings() -> Iterator[Finding]:
        inputs = subject.inputs(max(LENGTHS), "growth")
        rough = copy.deepcopy(subject.module).to(dtype)
        # Both have the rounded parameters: what is measured is the arithmetic.
        exact = copy.deepcopy(rough).to(torch.float64)
        nudged = moved(exact, torch.finfo(dtype).eps / 2, subject.seed)
        runs = (_tails(exact, inputs), _tails(rough, _cast(inputs, dtype)), _tails(nudged, inputs))
        for n, want, got, shifted in zip(LENGTHS, *runs, strict=True):
            error, drift = (_apart(tail, want) for tail in (got, shifted))
            found.append(Growth(n, error if math.isfinite(error) else None))
            where = f"{name}, {n} tokens: the last digit of the parameters makes {drift:.1e}"
            allowed = max(bound, MARGIN * drift) if math.isfinite(drift) else bound
            yield advised(Finding(where, error, allowed), LOST[name] if math.isfinite(error) else GROWN)

    return found, findings()


def advised(found: Finding, advice: str) -> Finding:
    """A finding; one that is bad also says what it means and what to change."""
    return found if found.good else replace(found, where=f"{found.where}: {advice}")


def spelt(growth: Iterable[Growth]) -> str:
    """`256 tokens 3.6e-07, 1024 tokens 9.3e-07`."""
    return ", ".join(f"{g.tokens} tokens {'-' if g.error is None else f'{g.error:.1e}'}" for g in growth)


def told(findings: Iterable[Finding], notes: list[str]) -> Iterator[Finding]:
    """The same findings; what each of them says is noted."""
    for found in findings:
        notes.append(found.where)
        yield found


def moved(module: Layer, by: float, seed: int) -> Layer:
    """The module with every parameter moved by about `by` of itself."""
    made = copy.deepcopy(module)
    with torch.no_grad():
        for path, parameter in made.parameter_paths().items():
            noise = torch.randn(
                parameter.shape, generator=generator(seed, f"nudge {path}"), dtype=torch.float64
            )
            parameter.mul_(1.0 + by * noise)
    return made


def _apart(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> float:
    """The worst relative error of the outputs."""
    return max(_root_mean_square(g.double(), w.double()) for g, w in zip(got, want, strict=True))


def _root_mean_square(got: Tensor, want: Tensor) -> float:
    """|got - want| / |want|, Euclidean; infinite where one of them is not finite."""
    apart = float((got - want).norm() / want.norm().clamp_min(1e-300))
    return apart if math.isfinite(apart) else math.inf


def _cast(inputs: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(s.to(dtype) if s.is_floating_point() else s for s in inputs)


def _tails(module: Layer, inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """The last outputs of every length."""
    state: State | None = None
    for start, end in zip((0, *LENGTHS), LENGTHS, strict=False):
        # Not around the `yield`: whoever stops listening would be left without gradients.
        with torch.no_grad():
            y, state = call(module, tuple(s[:, start:end] for s in inputs), state)
        yield tuple(x[:, -TAIL:] for x in y)


# --- bounded and alive -----------------------------------------------------------------------


@dataclass
class Run:
    """A long run in float32: the states behind every piece."""

    states: list[State]
    outputs: tuple[Tensor, ...]
    """Of the last piece."""

    @property
    def last(self) -> State:
        """The state behind the last piece."""
        return self.states[-1]

    def since(self, place: Place) -> tuple[State, int]:
        """The last state of which a memory has changed since at its clock, and so many tokens ago."""
        every = place.memory.clock.every if place.memory is not None else 1
        pieces = min(-(-every // PIECE), len(self.states) - 1)
        return self.states[-1 - pieces], pieces * PIECE


def alive(subject: Endurance) -> Iterator[Finding]:
    """Outputs stay finite, states grow like T at most, memories still move, and what they learned is used."""
    module = copy.deepcopy(subject.module).float()
    inputs = _cast(subject.inputs(TOKENS, "long"), torch.float32)
    run = _run(module, inputs)
    if isinstance(run, int):
        yield Finding(f"outputs are not finite before token {run}: {GROWN}", math.inf)
        return
    yield Finding(f"{TOKENS} tokens: outputs are finite", 0.0)
    for place in (p for p in subject.places if p.kind == "memory"):
        yield bounded(place, run)
        yield moving(place, run)
    more = _cast(subject.inputs(TAIL, "more"), torch.float32)
    for place in subject.places:
        yield used(module, place, run.last, more)
    yield from _written(subject, module, inputs, run)


def _run(module: Layer, inputs: tuple[Tensor, ...]) -> Run | int:
    """The run, or the end of the piece in which it stopped being finite."""
    states: list[State] = []
    y: tuple[Tensor, ...] = ()
    with torch.no_grad():
        for start in range(0, TOKENS, PIECE):
            # Not at a round number, where every clock has just reset.
            end = start + PIECE - (3 if start + PIECE == TOKENS else 0)
            y, state = call(module, tuple(s[:, start:end] for s in inputs), states[-1] if states else None)
            states.append(state)
            if not all(bool(torch.isfinite(x).all()) for x in y):
                return end
    return Run(states, y)


def _weights(state: State, place: Place) -> Tensor:
    """Everything that the running map of a memory is made of, or what it learned of the task, in one row."""
    held = entry(state, place)["delta" if place.kind == "task" else "running"]
    return torch.cat([w.flatten().double() for w in flatten(held).values()])


def bounded(place: Place, run: Run) -> Finding:
    norms = [float(_weights(s, place).norm()) for s in run.states]
    # What learns on a slow clock is nothing at first.
    first = next((i for i, norm in enumerate(norms[:-1]) if norm > 0.0), 0)
    early, last = norms[first], norms[-1]
    begun = (first + 1) * PIECE
    exponent = math.log(max(last, 1e-300) / max(early, 1e-300)) / math.log(TOKENS / begun)
    where = f"`{place.path}`: norm {early:.3g} behind {begun} tokens, {last:.3g} behind {TOKENS}"
    found = Finding(where, exponent if math.isfinite(last) else math.inf, EXPONENT)
    return advised(found, f"it grows faster than a sum of all tokens does; {CALMER}")


def moving(place: Place, run: Run) -> Finding:
    before, ago = run.since(place)
    moved = distance(_weights(run.last, place), _weights(before, place))
    where = f"`{place.path}`: moved by {100 * moved:.3g}% in the last {ago} tokens"
    held, first = (float(_weights(s, place).norm()) for s in (run.last, run.states[0]))
    dead = "it stands still: its rate or its gradient is zero"
    if held < max(NOTICED * first, GONE):
        dead = (
            f"it is dead, its norm is {held:.3g}: a rate that is not zero, a gate nearer to one, or "
            "`retain a toward init` where no gradient leaves zero (a product of weights)"
        )
    return advised(Finding(where, NOTICED / max(moved, 1e-300), 1.0), dead)


def used(module: Layer, place: Place, state: State, more: tuple[Tensor, ...]) -> Finding:
    """How much the next outputs change if one memory forgets everything."""
    forgot = forgotten(state, module.init_state(1), (place,))
    with torch.no_grad():
        kept, _ = call(module, more, state)
        lost, _ = call(module, more, forgot)
    change = _apart(lost, kept)
    where = f"`{place.path}`: the next outputs change by {100 * change:.3g}% if it forgets"
    return advised(
        Finding(where, NOTICED / max(change, 1e-300), 1.0), "what it holds does not reach the outputs"
    )


def _written(subject: Endurance, module: Layer, inputs: tuple[Tensor, ...], run: Run) -> Iterator[Finding]:
    """How much the outputs change if nothing with weights is ever written."""
    if not any(p.kind == "memory" for p in subject.places):
        return
    try:
        silent = subject.build(plan_of(without_writes(subject.program))).float()
    except SpecError:
        # A read that needs a memory that is written (`solve`): forgetting has to do.
        return
    values = module.drawn_paths()
    with torch.no_grad():
        for path, parameter in silent.drawn_paths().items():
            parameter.copy_(values[path])
    off = _run(silent, inputs)
    assert isinstance(off, Run)
    change = _apart(off.outputs, run.outputs)
    found = Finding(f"writes change the outputs by {100 * change:.3g}%", MATTERS / max(change, 1e-300), 1.0)
    yield advised(found, "memories do no more than their starts do: larger rates, or gates nearer to one")


def without_writes(program: Program) -> Program:
    """The program in which memories with weights stay what they start as.

    Example:
        >>> from nldsl.graph import open_program
        >>> program = without_writes(open_program("deltanet"))
        >>> any(p.kind == "memory" for p in places(program))
        False
    """

    def changed(block: Block) -> Block:
        with_weights = {m.name for m in block.memories if m.function is not None}
        body = tuple(
            replace(s, block=changed(s.block)) if isinstance(s, Call | Repeat) else s
            for s in block.body
            if not (isinstance(s, Write | Update) and s.memory in with_weights)
        )
        return replace(block, body=body)

    return replace(program, root=changed(program.root))
