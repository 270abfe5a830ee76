"""Run every check on one program and one set of clocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from nldsl.certify import checks, finite, gradients, learning
from nldsl.certify.align import LayoutError
from nldsl.certify.bench import Bench, Build, build_module, forward_lengths
from nldsl.certify.certificate import CheckResult, Difference, Growth, Lowering, Section
from nldsl.certify.clocks import ClockSet
from nldsl.certify.compare import BOUND, Finding, LeftOutError
from nldsl.certify.draws import draw_inputs, draw_parameters
from nldsl.certify.growth import float32_growth
from nldsl.certify.learning import School
from nldsl.certify.locate import locate, locate_learning
from nldsl.certify.oracle import Forward, Learning, run_forward
from nldsl.driver import plan_of
from nldsl.plan.plan import Plan
from nldsl.spec.program import Program

BATCH = 2
Say = Callable[[str], None]

FORWARD: tuple[tuple[str, Callable[[Bench], Iterator[Finding]]], ...] = (
    ("outputs and states", checks.lengths),
    ("token by token", checks.token_by_token),
    ("splits", checks.splits),
    ("causality", checks.causality),
    ("batch", checks.batches),
    ("padding", checks.padding),
    ("train and eval", checks.modes),
    ("commits", checks.commits),
    ("gradients", gradients.gradients),
    ("other forms", gradients.other_forms),
    ("finite differences", finite.finite_differences),
)
LEARNING: tuple[tuple[str, bool, Callable[[School], Iterator[Finding]]], ...] = (
    ("loss, states, gradients", True, learning.learned),
    ("splits and commits", False, learning.stepped),
    ("padding", False, learning.masked),
)
"""The second says whether it is run again under the other `carry`."""


@dataclass
class Subject:
    """A program on one set of clocks with everything the interpreter says about it: no compiled code yet."""

    program: Program
    clocks: ClockSet
    plan: Plan
    seed: int
    values: dict[str, Tensor]
    reference: Forward
    lengths: tuple[int, ...]
    lessons: dict[learning.Carry, Learning] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def prepare(program: Program, clocks: ClockSet, seed: int, say: Say, *, both: bool = True) -> Subject:
    """Ask the interpreter: `forward` at all lengths, `learn` under its `carry` (`both`: under each).

    Errors: `SpecError` (NL0701) for a program the compiler does not support yet.
    """
    plan = plan_of(program)
    lengths = forward_lengths(program, plan)
    values, reference = _forward(program, seed, max(lengths), say)
    subject = Subject(program, clocks, plan, seed, values, reference, lengths)
    if not learning.learns(program):
        return subject
    own: learning.Carry = "trunc" if program.train is None else program.train.carry
    tasks = sorted(new for _, new in clocks.task)
    (stream,) = draw_inputs(program, BATCH, learning.learning_tokens(tasks), seed, "learn")
    if reference.diverges is not None:
        stream = reference.inputs[0][:, : reference.tame]
    for carry in sorted(learning.CARRIES, key=lambda c: c != own)[: 2 if both and tasks else 1]:
        say(f"interpreter: learn, {carry}")
        subject.lessons[carry] = learning.make_reference(program, values, carry, seed, stream)
    return subject


def prepare_forward(program: Program, seed: int, tokens: int, say: Say) -> Subject:
    """`forward` at one length, on the clocks as they are."""
    values, reference = _forward(program, seed, tokens, say)
    return Subject(program, ClockSet("original"), plan_of(program), seed, values, reference, (tokens,))


def _forward(program: Program, seed: int, tokens: int, say: Say) -> tuple[dict[str, Tensor], Forward]:
    values = {path: v.requires_grad_() for path, v in draw_parameters(program, seed).items()}
    inputs = draw_inputs(program, BATCH, tokens, seed, "inputs")
    inputs = tuple(s.requires_grad_() if s.is_floating_point() else s for s in inputs)
    return values, run_forward(program, values, inputs, lambda t: say(f"interpreter: token {t} of {tokens}"))


def examine(subject: Subject, build: Build, say: Say, *, until_failure: bool = False) -> Section:
    """Every check on the module that `build` makes, and where it first differs if one fails.

    until_failure: stop at the first check that fails, and do not look for the place.
    """
    results: list[CheckResult] = []
    bench = _opened(subject, build, results)
    difference: Difference | None = None
    growth: tuple[Growth, ...] = ()
    if bench is not None:
        for result in _all(bench, subject, say):
            results.append(result)
            if until_failure and not result.passed:
                break
        else:
            growth, nonsense = float32_growth(bench)
            results.append(nonsense)
        if not until_failure and not all(r.passed for r in results):
            say("looking for the first difference")
            difference = _located(bench, subject, results)
    return _section(subject, tuple(results), growth, difference)


def examine_forward(subject: Subject, build: Build, say: Say) -> Section:
    """Outputs and state of one long call."""
    results: list[CheckResult] = []
    bench = _opened(subject, build, results)
    difference = None
    if bench is not None:
        say("compiled: forward")
        results.append(run("outputs and states", lambda: checks.one_call(bench)))
        difference = None if results[-1].passed else locate(bench)
    return _section(subject, tuple(results), (), difference)


def _opened(subject: Subject, build: Build, results: list[CheckResult]) -> Bench | None:
    """The bench, or a failed result if the program does not even compile to the right parameters."""
    try:
        bench = Bench(
            subject.program,
            subject.plan,
            build,
            subject.seed,
            subject.values,
            subject.reference,
            subject.lengths,
        )
    except Exception as wrong:
        results.append(CheckResult("module", False, 1, None, 0.0, note=_told(wrong)))
        return None
    results.append(
        CheckResult("module", True, 1, 0.0, 0.0, f"{len(subject.values)} parameters by path and shape")
    )
    return bench


def _all(bench: Bench, subject: Subject, say: Say) -> Iterator[CheckResult]:
    for name, check in FORWARD:
        say(name)
        yield run(name, lambda check=check: check(bench))  # type: ignore[misc]
    for number, (carry, lesson) in enumerate(subject.lessons.items()):
        school = School(bench, carry, lesson)
        for name, again, lecture in LEARNING:
            if again or not number:
                say(f"learn ({carry}): {name}")
                yield run(f"learn ({carry}): {name}", lambda lecture=lecture, school=school: lecture(school))  # type: ignore[misc]


def run(name: str, findings: Callable[[], Iterator[Finding]]) -> CheckResult:
    """Consume a check up to its first failure; what the compiled code raises is a failure too."""
    worst, cases = Finding("", 0.0, BOUND), 0
    try:
        for found in findings():
            cases += 1
            if found.error / found.bound > worst.error / worst.bound or not worst.where:
                worst = found
            if not found.good:
                worst = found
                break
    except LeftOutError as reason:
        return CheckResult(name, True, cases, None, BOUND, note=f"left out: {reason}")
    except LayoutError as wrong:
        return CheckResult(name, False, cases + 1, None, BOUND, note=str(wrong))
    except Exception as wrong:
        return CheckResult(name, False, cases + 1, None, BOUND, note=_told(wrong))
    error = worst.error if math.isfinite(worst.error) else None
    where = worst.where if cases else "nothing to compare"
    return CheckResult(name, worst.good, cases, error, worst.bound, where)


def _told(wrong: Exception) -> str:
    first = str(wrong).strip().splitlines()
    return f"raised {type(wrong).__name__}: {first[0] if first else ''}"


def _located(bench: Bench, subject: Subject, results: list[CheckResult]) -> Difference | None:
    found = locate(bench)
    if found is not None:
        return found
    for carry, lesson in subject.lessons.items():
        if any(not r.passed and r.name.startswith(f"learn ({carry})") for r in results):
            found = locate_learning(School(bench, carry, lesson))
            if found is not None:
                return found
    return None


def _section(
    subject: Subject,
    results: tuple[CheckResult, ...],
    growth: tuple[Growth, ...],
    difference: Difference | None,
) -> Section:
    notes = list(subject.notes)
    if subject.reference.diverges is not None:
        notes.append(f"the interpreter diverges at token {subject.reference.diverges}; compared up to there")
    return Section(
        subject.clocks.name,
        subject.clocks.forward,
        subject.clocks.task,
        subject.clocks.copies,
        subject.reference.tokens,
        tuple(n for n in subject.lengths if n <= subject.reference.tokens),
        subject.reference.diverges,
        tuple(Lowering(*row) for row in subject.plan.rows()),
        results,
        growth,
        difference,
        tuple(notes),
    )


__all__ = ["Subject", "build_module", "examine", "examine_forward", "prepare", "prepare_forward"]
