"""`verify` of rules: the compiled optimizer against the literal interpretation, in double precision."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nldsl.catalog.values import Shape
from nldsl.diagnostics import SpecError
from nldsl.driver.rules import has_rows, optimizer
from nldsl.reference.optimiser import LiteralOptimiser
from nldsl.runtime.rule_kernel import Kernel
from nldsl.runtime.rule_optimizer import RuleOptimizer
from nldsl.spec.outer_rules import OuterRule
from nldsl.spec.program import GroupRule, Program

SHAPES: tuple[Shape, ...] = ((5, 3), (3, 5), (4, 4), (6,), (2, 3, 4))
STEPS = 24
BOUND = 1e-9
"""Largest difference allowed, relative to the size of the weights."""


@dataclass(frozen=True)
class RuleCheck:
    """One weight (or layer) under one rule: the worst difference of weight and memories over all steps."""

    rule: str
    weight: str
    form: str
    reason: str
    passed: bool
    error: float | None
    where: str = ""


@dataclass(frozen=True)
class RuleCertificate:
    """What `verify` says about rules."""

    spec: str
    steps: int
    bound: float
    seed: int
    checks: tuple[RuleCheck, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check did."""
        return all(check.passed for check in self.checks)

    def text(self) -> str:
        """A line per weight, then the verdict."""
        lines = [f"rules of {self.spec}, {self.steps} steps, seed {self.seed} ({self.seconds:.1f} s)", ""]
        for c in self.checks:
            error = "-" if c.error is None else f"{c.error:.1e}"
            said = c.where or f"{c.form}: {c.reason}"
            lines.append(f"  {'ok  ' if c.passed else 'FAIL'} {c.rule} {c.weight:<12} {error:>7}  {said}")
        bad = sum(not c.passed for c in self.checks)
        verdict = f"agree (float64, within {self.bound:.0e})" if not bad else f"differ in {bad} checks"
        return "\n".join([*lines, "", f"{self.spec}: compiled optimizer and interpreter {verdict}"])

    def to_json(self) -> dict[str, Any]:
        """The certificate as data for JSON."""
        return {**asdict(self), "passed": self.passed}


def verify_rules(groups: Iterable[GroupRule], spec: str, seed: int = 0) -> RuleCertificate:
    """Compare the compiled optimizers of these groups with the interpreter.

    Every kind of weight the rule can train: matrices, a vector, a stack of matrices; random gradients, some
    missing; a number of the rule that changes on the way.

    Example:
        >>> from nldsl.spec.open_rule import open_rule
        >>> verify_rules([open_rule("adamw", lr=1e-2)], "adamw").passed
        True
    """
    begun = time.monotonic()
    checks: list[RuleCheck] = []
    for group in groups:
        assert group.outer is not None
        if has_rows(group.outer):
            checks.append(_layer(group, group.outer, seed))
        else:
            checks += _weights(group, group.outer, seed)
    return RuleCertificate(spec, STEPS, BOUND, seed, tuple(checks), round(time.monotonic() - begun, 2))


def rules_of(program: Program) -> list[GroupRule]:
    """The rules of a model's `train` section, each once."""
    groups = program.train.groups if program.train is not None else ()
    found = {(g.rule, g.arguments): g for g in groups if g.outer is not None}
    return list(found.values())


def _weights(group: GroupRule, outer: OuterRule, seed: int) -> list[RuleCheck]:
    """Random weights of every shape that the rule can train, one after the other."""
    return [check for shape in SHAPES if (check := _weight(group, outer, shape, seed)) is not None]


def _weight(group: GroupRule, outer: OuterRule, shape: Shape, seed: int) -> RuleCheck | None:
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(_draw(shape, generator))
    try:
        made = optimizer(group, [("w", weight)], seed=seed)
    except SpecError as error:
        if error.diagnostics[0].code == "NL0963":
            return None
        raise
    kernel = made.kernel_of(weight)
    literal = LiteralOptimiser(
        {"w": weight.detach().clone()},
        lambda s: outer.at(s, False),
        dict(made.param_groups[0]),
        _drawn(made, weight),
    )
    worst, where = 0.0, ""
    for step in range(STEPS):
        weight.grad = None if step % 7 == 3 else _draw(shape, generator)
        _change(made, literal, step)
        made.step()
        if weight.grad is not None:
            literal.step({"w": weight.grad})
        pairs = _pairs(made, literal, weight)
        if step and any(_grown(ours) and _grown(theirs) for _, ours, theirs in pairs):
            shown = "" if worst > BOUND else f"by both forms not finite from step {step + 1} on: it diverges"
            return _check(outer, kernel, str(list(shape)), worst, where, shown)
        for name, ours, theirs in pairs:
            found = _error(ours, theirs)
            if not found <= worst:
                worst, where = found, f"`{name}` at step {step + 1}"
    return _check(outer, kernel, str(list(shape)), worst, where)


def _grown(value: Tensor) -> bool:
    return not bool(torch.isfinite(value).all())


def _draw(shape: Shape, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _drawn(made: RuleOptimizer, weight: Tensor) -> dict[tuple[str, str], Tensor]:
    """The memories that do not start at zero."""
    memories = made.kernel_of(weight).memories
    return {("w", m.name): made.state[weight][m.name].clone() for m in memories if m.init is not None}


def _change(made: RuleOptimizer, literal: LiteralOptimiser, step: int) -> None:
    """From the middle on the first open number is smaller, as a schedule would have it."""
    if step == STEPS // 2 and made.arguments:
        name = next(iter(made.arguments))
        made.param_groups[0][name] *= 0.5
        literal.arguments = dict(made.param_groups[0])


def _pairs(
    made: RuleOptimizer, literal: LiteralOptimiser, weight: Tensor
) -> list[tuple[str, Tensor, Tensor]]:
    """(name, compiled, literal) of the weight and of every memory both keep."""
    pairs = [("W", weight.detach(), literal.weights["w"])]
    held = literal.kept.get("w", [])
    for name, value in made.state[weight].items():
        if held and name in held[0]:
            # A stack of matrices is one long vector for an element-wise rule: its numbers are shared.
            stacked = weight.ndim == 3 and value.ndim > 0
            theirs = torch.stack([h[name] for h in held]) if stacked else held[0][name]
            pairs.append((name, value, theirs))
    return pairs


def _layer(group: GroupRule, outer: OuterRule, seed: int) -> RuleCheck:
    """A linear layer under a rule that looks at its inputs: the fused product against the mean over rows."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(5, 3, bias=False).double()
    layer.weight.data = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    made = optimizer(group, layer)
    literal = LiteralOptimiser(
        {"w": layer.weight.detach().clone()},
        lambda s: outer.at(s, True),
        dict(made.param_groups[0]),
        _drawn(made, layer.weight),
    )
    worst, where = 0.0, ""
    for step in range(STEPS):
        x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        dy = torch.randn(7, 3, generator=generator, dtype=torch.float64) / 7
        made.zero_grad()
        _change(made, literal, step)
        layer(x).backward(dy)
        made.step()
        literal.step_rows("w", x, dy)
        for name, ours, theirs in _pairs(made, literal, layer.weight):
            error = _error(ours, theirs)
            if not error <= worst:
                worst, where = error, f"`{name}` at step {step + 1}"
    return _check(outer, made.kernel_of(layer.weight), "layer [3, 5]", worst, where)


def _error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest element (at least one)."""
    size = max(1.0, float(theirs.abs().max())) if theirs.numel() else 1.0
    return float((ours - theirs).abs().max()) / size


def _check(
    outer: OuterRule, kernel: Kernel, weight: str, worst: float, where: str, told: str = ""
) -> RuleCheck:
    good = worst <= BOUND
    shown = None if worst != worst or worst == float("inf") else worst
    return RuleCheck(outer.name, weight, kernel.form, kernel.reason, good, shown, told if good else where)
