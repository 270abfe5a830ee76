"""What has to be true of every program, whatever its sizes, lengths, splits, masks and parameters.

A `Case` is one draw of all of these; `Tested.check` holds one property against it.  `hunt` draws cases with
hypothesis, `reduce` makes a program small that fails.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nldsl.certify.align import align, places
from nldsl.certify.bench import Build, build_module, call, call_in_parts
from nldsl.certify.checks import MARGIN, NUDGE, UNCLEAR
from nldsl.certify.clocks import clock_sets, token_clocks, with_clocks
from nldsl.certify.compare import BOUND, CAUSAL, Finding, Pair, distance, farthest, size
from nldsl.certify.draws import draw_inputs, draw_parameters, generator
from nldsl.certify.learning import learns
from nldsl.certify.oracle import TAME
from nldsl.certify.shrink import shrink
from nldsl.diagnostics import SpecError
from nldsl.driver.compile import plan_of
from nldsl.graph import open_program
from nldsl.reference import Interpreter
from nldsl.runtime.model import Layer, Model
from nldsl.runtime.state import State
from nldsl.source import SourceFile
from nldsl.spec.program import Program

LONGEST_READ = 20
"""Tokens the interpreter is asked for: it takes about ten milliseconds for each."""
LONGEST = 150
"""Tokens where only the compiled program runs: more than two chunks of its kernels."""
_MOST = 1_000_000
SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
"""What integer arguments are drawn from."""


@dataclass(frozen=True)
class Case:
    """One draw: sizes, which short clocks, parameters and inputs by their seed, and how they are called.

    `cuts` are the ends of the calls; `masked` the (sequence, token) that are padding.
    """

    tokens: int = 1
    batch: int = 1
    seed: int = 0
    clocks: int = 0
    cuts: tuple[int, ...] = ()
    masked: tuple[tuple[int, int], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()

    def text(self) -> str:
        """The case in words."""
        parts = [f"{name} = {value}" for name, value in self.arguments]
        parts += [f"{self.tokens} {'token' if self.tokens == 1 else 'tokens'}", f"{self.batch} in the batch"]
        parts += [f"calls that end at {', '.join(map(str, self.cuts))}"] if len(self.cuts) > 1 else []
        parts += [f"{len(self.masked)} masked"] if self.masked else []
        return ", ".join([*parts, f"clocks {self.clocks}", f"seed {self.seed}"])

    def to_json(self) -> dict[str, Any]:
        """The case as data for JSON."""
        return asdict(self) | {"arguments": dict(self.arguments)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Case:
        """The case that `to_json` wrote.

        Errors: `TypeError`, `ValueError` for anything else.

        Example:
            >>> Case.from_json(Case(3, cuts=(1, 3)).to_json()) == Case(3, cuts=(1, 3))
            True
        """
        given = dict(data)
        given["cuts"] = tuple(int(n) for n in given.get("cuts", ()))
        given["masked"] = tuple((int(b), int(t)) for b, t in given.get("masked", ()))
        given["arguments"] = tuple(sorted(dict(given.get("arguments", {})).items()))
        for name, least in (("tokens", 1), ("batch", 1), ("seed", 0), ("clocks", 0)):
            value = given.get(name, least)
            if type(value) is not int or not least <= value <= _MOST:
                raise ValueError(f"`{name}` is a whole number from {least} on, found {value!r}")
        return cls(**given)


class FailedError(AssertionError):
    """A property does not hold: which one, in which case, and what was found."""

    def __init__(self, name: str, case: Case, finding: Finding, note: str = "") -> None:
        told = note or f"{finding.where}: {finding.error:.1e} apart, {finding.bound:.0e} allowed"
        super().__init__(f"{name}: {told} ({case.text()})")
        self.name, self.case, self.finding, self.note, self.told = name, case, finding, note, told

    @property
    def kind(self) -> str:
        """A difference, or the type of what was raised: a smaller program must fail in the same way."""
        return self.note.partition(":")[0]


class UnfitError(Exception):
    """The sizes of a case do not make a program."""


@dataclass
class Subject:
    """One program of one case, compiled, with its inputs."""

    program: Program
    module: Layer
    case: Case
    values: dict[str, Tensor]

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """The streams of the case, `[B, T, ...]`."""
        return draw_inputs(self.program, self.case.batch, self.case.tokens, self.case.seed, "case")

    @cached_property
    def mask(self) -> Tensor:
        """Which tokens are real."""
        mask = torch.ones(self.case.batch, self.case.tokens, dtype=torch.bool)
        for b, t in self.case.masked:
            if b < self.case.batch and t < self.case.tokens:
                mask[b, t] = False
        return mask

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Ends of calls inside the sequence, and its end."""
        end = self.case.tokens
        return tuple(sorted({c for c in self.case.cuts if 0 < c < end} | {end}))

    @cached_property
    def whole(self) -> tuple[tuple[Tensor, ...], State]:
        """Outputs and state of one call without a mask."""
        with torch.no_grad():
            return call(self.module, self.inputs)

    def noise(self, tokens: int, purpose: str) -> tuple[Tensor, ...]:
        """Other inputs of the same kinds."""
        return draw_inputs(self.program, self.case.batch, tokens, self.case.seed, purpose)


Findings = Iterator[Finding]


def outputs_of(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> list[Pair]:
    """Outputs side by side."""
    return [Pair(f"output {i}", "", "", g, w) for i, (g, w) in enumerate(zip(found, wanted, strict=True))]


def states_of(found: State, wanted: State) -> list[Pair]:
    """Every tensor of two compiled states side by side."""
    got, want = found.tensors(), wanted.tensors()
    odd = got.keys() ^ want.keys()
    if odd:
        raise KeyError(f"only one of the states has `{sorted(odd)[0]}`")
    return [Pair(path, "state", "", got[path].double(), w.double()) for path, w in want.items()]


# --- the properties --------------------------------------------------------------------------


def interpreted(subject: Subject) -> Findings:
    """Outputs and states of the compiled program are those of the interpreter, masked tokens included."""
    machine = Interpreter(subject.program, subject.values)
    with torch.no_grad():
        want, after = machine.run(subject.inputs, mask=subject.mask)
        got, state = call(subject.module, subject.inputs, None, subject.mask)
    yield farthest(outputs_of(got, want if isinstance(want, tuple) else (want,)))
    yield farthest(align(places(subject.program), state, after))


def gradients(subject: Subject) -> Findings:
    """Gradients of a projection of the outputs, by every parameter, are those of the interpreter."""
    leaves = {path: v.clone().requires_grad_() for path, v in subject.values.items()}
    want, _ = Interpreter(subject.program, leaves).run(subject.inputs)
    got, _ = call(subject.module, subject.inputs)
    sides = ((got, subject.module.parameter_paths()), (want if isinstance(want, tuple) else (want,), leaves))
    found = []
    for outputs, own in sides:
        total = torch.zeros((), dtype=torch.float64)
        for i, y in enumerate(outputs):
            source = generator(subject.case.seed, f"projection {i}")
            total = total + (y * torch.randn(y.shape, generator=source, dtype=torch.float64)).sum()
        asked = [own[path] for path in leaves]
        told = torch.autograd.grad(total, asked, allow_unused=True) if total.requires_grad else ()
        found.append([torch.zeros_like(a) if g is None else g for a, g in zip(asked, told, strict=False)])
    pairs = [Pair(p, "gradient", "", g, w) for p, g, w in zip(leaves, *found, strict=False)]
    yield farthest(pairs, cap=float("inf"))


def splits(subject: Subject) -> Findings:
    """A sequence in several calls is the sequence in one."""
    y, state = subject.whole
    with torch.no_grad():
        got, after = call_in_parts(subject.module, subject.inputs, subject.cuts)
    yield farthest(outputs_of(got, y))
    yield farthest(states_of(after, state))


def steps(subject: Subject) -> Findings:
    """One token per call is the sequence in one."""
    y, state = subject.whole
    with torch.no_grad():
        got, after = call_in_parts(subject.module, subject.inputs, range(1, subject.case.tokens + 1))
    yield farthest(outputs_of(got, y))
    yield farthest(states_of(after, state))


def causality(subject: Subject) -> Findings:
    """What comes later changes nothing before it."""
    y, _ = subject.whole
    others = subject.noise(subject.case.tokens, "later")
    with torch.no_grad():
        for t in subject.cuts:
            mixed = tuple(
                torch.cat([s[:, :t], o[:, t:]], 1) for s, o in zip(subject.inputs, others, strict=True)
            )
            got, _ = call(subject.module, mixed)
            for i, (g, w) in enumerate(zip(got, y, strict=True)):
                yield Finding(f"output {i} before token {t}", distance(g[:, :t], w[:, :t]), CAUSAL)


def batches(subject: Subject) -> Findings:
    """A sequence alone is the sequence beside others, in outputs and states."""
    y, state = subject.whole
    with torch.no_grad():
        for b in range(subject.case.batch):
            got, after = call(subject.module, tuple(s[b : b + 1] for s in subject.inputs))
            yield farthest(outputs_of(got, tuple(x[b : b + 1] for x in y)))
            yield farthest(states_of(after, state.map(lambda x, b=b: x[b : b + 1])))  # type: ignore[misc]


def padding(subject: Subject) -> Findings:
    """Masked tokens, whatever they hold, change no output of a real token, and not what comes behind them."""
    mask, more = subject.mask, subject.noise(2, "more")
    others = subject.noise(subject.case.tokens, "padding")
    filled = tuple(
        torch.where(mask.view(*mask.shape, *(1,) * (s.dim() - 2)), s, o)
        for s, o in zip(subject.inputs, others, strict=True)
    )
    with torch.no_grad():
        got, after = call(subject.module, filled, None, mask)
        behind, _ = call(subject.module, more, after)
        for b in range(subject.case.batch):
            real = tuple(s[b : b + 1, mask[b]] for s in subject.inputs)
            want, state = call(subject.module, real)
            yield farthest(outputs_of(tuple(x[b : b + 1, mask[b]] for x in got), want))
            then, _ = call(subject.module, tuple(s[b : b + 1] for s in more), state)
            yield farthest(outputs_of(tuple(x[b : b + 1] for x in behind), then))


def saved(subject: Subject) -> Findings:
    """A state that was saved and loaded goes on as the one in memory."""
    _, state = subject.whole
    more = subject.noise(3, "more")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        state.save(Path(folder) / "state.safetensors")
        loaded = subject.module.load_state(Path(folder) / "state.safetensors")
        want, last = call(subject.module, more, state)
        got, after = call(subject.module, more, loaded)
    for pair in (*outputs_of(got, want), *states_of(after, last)):
        yield Finding(pair.where, distance(pair.got, pair.want), CAUSAL)


def learning(subject: Subject) -> Findings:
    """`learn` scores what the interpreter scores, in one call and in several, masked tokens included."""
    model = subject.module
    assert isinstance(model, Model)
    tokens, mask = subject.inputs[0], subject.mask
    want, after = Interpreter(subject.program, subject.values).learn(tokens, mask=mask)
    loss, state = model.learn(tokens, mask=mask)
    yield Finding("loss of one call", distance(loss, want, 1e-6))
    yield farthest(align(places(subject.program), state, after))
    total, parts = torch.zeros((), dtype=torch.float64), None
    for start, end in zip((0, *subject.cuts), subject.cuts, strict=False):
        loss, parts = model.learn(tokens[:, start:end], parts, mask=mask[:, start:end])
        total = total + loss
    assert parts is not None
    yield Finding(f"loss of calls that end at {subject.cuts}", distance(total, want, 1e-6))
    yield farthest(align(places(subject.program), parts, after))


def amplified(subject: Subject) -> float:
    """What a program makes of rounding: `MARGIN` times what parameters moved by `NUDGE` do.

    Errors: `UnfitError` if its numbers leave all bounds: nothing can be compared then.
    """
    if not subject.case.tokens:
        return 0.0
    y, state = subject.whole
    own = subject.module.parameter_paths()
    with torch.no_grad():
        for path, parameter in own.items():
            source = generator(subject.case.seed, f"nudge {path}")
            parameter.mul_(1 + NUDGE * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
        z, other = call(subject.module, subject.inputs)
        for path, parameter in own.items():
            parameter.copy_(subject.values[path])
    largest = max((size(x.double()) for x in (*y, *state.tensors().values())), default=0.0)
    drift = farthest([*outputs_of(z, y), *states_of(other, state)]).error
    if not (largest <= TAME and drift <= UNCLEAR):
        raise UnfitError("its numbers leave all bounds")
    return MARGIN * drift


@dataclass(frozen=True)
class Property:
    """A property, and the longest sequence it is tried on."""

    check: Callable[[Subject], Findings]
    longest: int = LONGEST
    models_only: bool = False


PROPERTIES: dict[str, Property] = {
    "interpreted": Property(interpreted, LONGEST_READ),
    "gradients": Property(gradients, LONGEST_READ),
    "splits": Property(splits),
    "steps": Property(steps),
    "causality": Property(causality),
    "batches": Property(batches),
    "padding": Property(padding),
    "saved": Property(saved),
    "learning": Property(learning, LONGEST_READ, models_only=True),
}


# --- a specification under test --------------------------------------------------------------


@dataclass
class Tested:
    """A specification whose properties are tested; `arguments` are fixed, others are drawn.

    Errors: `SpecError` of the specification.

    Example:
        >>> tested = Tested("linear_attention", "linear_attention", {"dim": 8})
        >>> tested.check("splits", Case(5, cuts=(2, 5), arguments=(("heads", 2),)))
    """

    source: str | Path | SourceFile
    block: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    build: Build = build_module
    exact: bool = False
    """The sizes are what `arguments` says: nothing is made smaller."""

    def __post_init__(self) -> None:
        if self.exact:
            self.program = open_program(self.source, block=self.block, **self.arguments)
            self.small = dict(self.arguments)
        else:
            small = shrink(self.source, self.block, dict(self.arguments))
            self.program, self.small = small.program, dict(small.arguments)
        plan_of(self.program)
        self._made: dict[Any, tuple[Program, Layer]] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The properties that say something about this program."""
        return tuple(n for n, p in PROPERTIES.items() if not p.models_only or learns(self.program))

    @cached_property
    def choices(self) -> dict[str, tuple[int, ...]]:
        """Values of every integer argument that was not given, each of which makes a program by itself."""
        known = {n: v for n, v in (*self.program.root.static, *self.small.items()) if type(v) is int}
        free = [n for n in sorted(known) if n not in self.arguments]
        clocks = token_clocks(self.program)
        found = {}
        for name in free:
            fits = []
            for value in SIZES:
                try:
                    made = self._opened({**self.small, name: value})
                except UnfitError:
                    continue
                if token_clocks(made) == clocks:
                    fits.append(value)
            found[name] = tuple(sorted({*fits, known[name]}))
        return found

    @cached_property
    def clock_choices(self) -> int:
        """How many sets of short clocks there are."""
        return len(clock_sets(token_clocks(self.program)))

    def _opened(self, arguments: Mapping[str, Any]) -> Program:
        try:
            return open_program(self.source, block=self.block, **arguments)
        except SpecError as wrong:
            raise UnfitError(str(wrong)) from wrong

    def subject(self, case: Case) -> Subject:
        """The compiled program of a case.

        Errors: `UnfitError` if its sizes do not make a program.
        """
        key = (case.arguments, case.clocks)
        if key not in self._made:
            program = self._opened({**self.small, **dict(case.arguments)})
            sets = clock_sets(token_clocks(program))
            program = with_clocks(program, sets[min(case.clocks, len(sets) - 1)])
            try:
                self._made[key] = program, self.build(plan_of(program)).to(torch.float64)
            except SpecError as wrong:
                raise UnfitError(str(wrong)) from wrong
        program, module = self._made[key]
        values = draw_parameters(program, case.seed)
        with torch.no_grad():
            for path, parameter in module.parameter_paths().items():
                parameter.copy_(values[path])
        return Subject(program, module, case, values)

    def check(self, name: str, case: Case) -> None:
        """Hold one property against one case.

        Errors: `FailedError` if it does not hold; `UnfitError` if the sizes do not make a program, or one
        that blows up.
        """
        subject = self.subject(case)
        try:
            # A property may be left in the middle of its `no_grad`.
            with torch.enable_grad():
                self._hold(name, subject)
        except (FailedError, UnfitError):
            raise
        except Exception as wrong:
            first = (str(wrong).strip().splitlines() or [""])[0]
            finding = Finding("raised", float("inf"), BOUND)
            raise FailedError(name, case, finding, f"{type(wrong).__name__}: {first}") from wrong

    def _hold(self, name: str, subject: Subject) -> None:
        for found in PROPERTIES[name].check(subject):
            if not found.good and found.error > amplified(subject):
                raise FailedError(name, subject.case, found)
