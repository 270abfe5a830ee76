"""How far float32 drifts from float64 with the length: reported, and bounded by what a digit explains."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.certify.bench import Bench, call
from nldsl.certify.certificate import CheckResult, Growth
from nldsl.certify.checks import MARGIN
from nldsl.certify.compare import distance
from nldsl.certify.lasting import moved
from nldsl.reference import Interpreter
from nldsl.runtime.model import Layer

LENGTHS = (16, 64, 256)
NONSENSE = 0.01
"""What outputs may be off, relatively, unless the program amplifies: float32 is good for 1e-7."""
TAIL = 8
"""Outputs compared: the last so many tokens of each length."""


def float32_growth(bench: Bench) -> tuple[tuple[Growth, ...], CheckResult]:
    """The compiled program in float32 against itself in float64, with the parameters it starts from.

    Some programs amplify whatever moves them.  Where float32 is far off, what float64 makes of parameters
    that differ in the last digit of float32 is measured too, and `MARGIN` times as much is allowed.
    Rounding is felt at every token and not in the parameters alone: where they do not explain it, the
    interpreter in float32 says how far off the program itself is.
    """
    name = "float32 growth"
    if bench.reference.diverges is not None:
        return (), _diverging(name)
    double = copy.deepcopy(bench.module)
    with torch.no_grad():
        for path, parameter in double.drawn_paths().items():
            parameter.copy_(bench.initial[path])
    single = copy.deepcopy(double).to(dtype=torch.float32)
    inputs = bench.noise(max(LENGTHS), "growth")
    found, known = [], []
    with torch.no_grad():
        for n in LENGTHS:
            part = tuple(s[:, :n] for s in inputs)
            exact, _ = call(double, part)
            known.append(exact)
            if n == LENGTHS[0] and not all(_in_range(e) for e in exact):
                return (), _diverging(name, f" within {n} tokens")
            rough, _ = call(single, _rounded(part))
            found.append(Growth(n, _apart(rough, exact)))
    return tuple(found), _judged(name, bench, double, inputs, tuple(found), known)


def _apart(got: Sequence[Tensor], exact: Sequence[Tensor]) -> float | None:
    """The largest relative error of the last outputs, `None` if it is no number."""
    errors = [distance(g[:, -TAIL:].double(), e[:, -TAIL:]) for g, e in zip(got, exact, strict=True)]
    return max(errors) if math.isfinite(max(errors)) else None


def _judged(
    name: str,
    bench: Bench,
    double: Layer,
    inputs: tuple[Tensor, ...],
    found: tuple[Growth, ...],
    known: Sequence[Sequence[Tensor]],
) -> CheckResult:
    """Whether float32 is as far off as its digits explain."""
    text = ", ".join(f"{g.tokens} tokens {'-' if g.error is None else f'{g.error:.1e}'}" for g in found)
    first = found[0].error
    good = first is not None and first <= NONSENSE
    far = [(n, g.error) for n, g in enumerate(found) if g.error is not None and g.error > NONSENSE]
    if not good or not far:
        return CheckResult(name, good, len(found), first, NONSENSE, text)
    nudged, drifts = moved(double, torch.finfo(torch.float32).eps / 2, bench.seed), []
    with torch.no_grad():
        for n, _ in far:
            drift = _apart(call(nudged, tuple(s[:, : LENGTHS[n]] for s in inputs))[0], known[n])
            drifts.append(math.inf if drift is None else drift)
    text += f"; the last digit of the parameters makes {', '.join(f'{d:.1e}' for d in drifts)}"
    for (n, error), drift in zip(far, drifts, strict=True):
        if error <= max(NONSENSE, MARGIN * drift):
            continue
        literal = _literally(bench, tuple(s[:, : LENGTHS[n]] for s in inputs), known[n])
        text += f"; the interpreter in float32 is off by {literal:.1e} at {LENGTHS[n]} tokens"
        if error > MARGIN * literal:
            return CheckResult(
                name, False, len(found), error, max(NONSENSE, MARGIN * max(drift, literal)), text
            )
    return CheckResult(name, True, len(found), first, NONSENSE, f"{text}: the program amplifies")


def _rounded(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(s.float() if s.is_floating_point() else s for s in inputs)


def _literally(bench: Bench, inputs: tuple[Tensor, ...], exact: Sequence[Tensor]) -> float:
    """How far off the interpreter is in float32."""
    machine = Interpreter(bench.program, bench.initial, torch.float32)
    rough = _rounded(inputs)
    found, _ = machine.run(rough if len(rough) > 1 else rough[0])
    drift = _apart(found if isinstance(found, tuple) else (found,), exact)
    return math.inf if drift is None else drift


def _in_range(exact: Tensor) -> bool:
    """Whether float32 could hold what float64 has found."""
    return bool((exact.abs() < torch.finfo(torch.float32).max).all())


def _diverging(name: str, where: str = "") -> CheckResult:
    return CheckResult(name, True, 0, None, NONSENSE, note=f"not measured: the program diverges{where}")
