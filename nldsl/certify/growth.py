"""How far float32 drifts from float64 with the length: reported, and bounded against nonsense only."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from nldsl.certify.bench import Bench, call
from nldsl.certify.certificate import CheckResult, Growth
from nldsl.certify.compare import distance

LENGTHS = (16, 64, 256)
NONSENSE = 0.01
"""What the first 16 tokens may be off, relatively: float32 is good for 1e-7, recurrences multiply it."""
TAIL = 8
"""Outputs compared: the last so many tokens of each length."""


def float32_growth(bench: Bench) -> tuple[tuple[Growth, ...], CheckResult]:
    """The compiled program in float32 against itself in float64, with the parameters it starts from."""
    name = "float32 growth"
    if bench.reference.diverges is not None:
        return (), _diverging(name)
    double = copy.deepcopy(bench.module)
    with torch.no_grad():
        for path, parameter in double.parameter_paths().items():
            parameter.copy_(bench.initial[path])
    single = copy.deepcopy(double).to(dtype=torch.float32)
    inputs = bench.noise(max(LENGTHS), "growth")
    found = []
    with torch.no_grad():
        for n in LENGTHS:
            part = tuple(s[:, :n] for s in inputs)
            exact, _ = call(double, part)
            if n == LENGTHS[0] and not all(_in_range(e) for e in exact):
                return (), _diverging(name, f" within {n} tokens")
            rough, _ = call(single, tuple(s.float() if s.is_floating_point() else s for s in part))
            errors = [
                distance(r[:, -TAIL:].double(), e[:, -TAIL:]) for r, e in zip(rough, exact, strict=True)
            ]
            found.append(Growth(n, max(errors) if math.isfinite(max(errors)) else None))
    first = found[0].error if found else 0.0
    good = first is not None and first <= NONSENSE
    text = ", ".join(f"{g.tokens} tokens {'-' if g.error is None else f'{g.error:.1e}'}" for g in found)
    return tuple(found), CheckResult(name, good, len(found), first, NONSENSE, text)


def _in_range(exact: Tensor) -> bool:
    """Whether float32 could hold what float64 has found."""
    return bool((exact.abs() < torch.finfo(torch.float32).max).all())


def _diverging(name: str, where: str = "") -> CheckResult:
    return CheckResult(name, True, 0, None, NONSENSE, note=f"not measured: the program diverges{where}")
