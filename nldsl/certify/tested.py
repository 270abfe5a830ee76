"""A specification under test: its programs at every size, and whether a property holds of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from nldsl.certify.bench import Build, build_module, call
from nldsl.certify.cases import Case, FailedError, UnfitError
from nldsl.certify.checks import MARGIN, NUDGE, UNCLEAR
from nldsl.certify.clocks import clock_sets, token_clocks, with_clocks
from nldsl.certify.compare import BOUND, Finding, farthest, size
from nldsl.certify.draws import draw_parameters, generator
from nldsl.certify.learning import learns
from nldsl.certify.oracle import TAME
from nldsl.certify.properties import PROPERTIES, Subject, outputs_of, states_of
from nldsl.certify.shrink import shrink
from nldsl.diagnostics import SpecError
from nldsl.driver.compile import plan_of
from nldsl.graph import open_program
from nldsl.runtime.model import Layer
from nldsl.runtime.state import State
from nldsl.source import SourceFile
from nldsl.spec.program import Program

SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
"""What integer arguments are drawn from."""


def amplified(subject: Subject) -> float:
    """What a program makes of rounding: `MARGIN` times what parameters moved by `NUDGE` do.

    Tokens that a mask leaves out may be what keeps a memory in bounds, and properties go on behind a
    sequence: what is left of every sequence is looked at too, by itself, so that no fault of a mask passes.

    Errors: `UnfitError` if its numbers leave all bounds: nothing can be compared then.
    """
    if not subject.case.tokens:
        return 0.0
    given = [(subject.inputs, subject.noise(3, "more"))]
    for b in (b for b in range(subject.case.batch) if not subject.mask[b].all()):
        left = tuple(s[b : b + 1, subject.mask[b]] for s in subject.inputs)
        given.append((left, tuple(s[b : b + 1] for s in given[0][1])))
    plain = [_run(subject, *streams) for streams in given]
    own = subject.module.parameter_paths()
    with torch.no_grad():
        for path, parameter in own.items():
            source = generator(subject.case.seed, f"nudge {path}")
            parameter.mul_(1 + NUDGE * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
        nudged = [_run(subject, *streams) for streams in given]
        for path, parameter in own.items():
            parameter.copy_(subject.values[path])
    drift = 0.0
    for (y, state), (z, other) in zip(plain, nudged, strict=True):
        sizes = [size(x.double()) for x in (*y, *state.tensors().values())]
        apart = farthest([*outputs_of(z, y), *states_of(other, state)]).error
        if not (max(sizes, default=0.0) <= TAME and apart <= UNCLEAR):
            raise UnfitError("its numbers leave all bounds")
        drift = max(drift, apart)
    return MARGIN * drift


def _run(
    subject: Subject, inputs: tuple[Tensor, ...], more: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], State]:
    """Outputs of a sequence and of what comes behind it, and the state after both."""
    with torch.no_grad():
        y, state = call(subject.module, inputs)
        behind, after = call(subject.module, more, state)
    return (*y, *behind), after


@dataclass
class Tested:
    """A specification whose properties are tested; `arguments` are fixed, others are drawn.

    Errors: `SpecError` of the specification.

    Example:
        >>> tested = Tested("linear_attention", "linear_attention", {"dim": 8})
        >>> tested.check("splits", Case(5, cuts=(2, 5), arguments=(("heads", 2),)))
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for tests.

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
            raise UnfitError(wrong.summary) from wrong

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
                raise UnfitError(wrong.summary) from wrong
        program, module = self._made[key]
        values = draw_parameters(program, case.seed)
        with torch.no_grad():
            for path, parameter in module.drawn_paths().items():
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
