"""A rule on the step clock, literally: one weight after the other, one application per step.

The same `step_rule` that gives a write its meaning; here the gradients come from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nldsl.reference.inner import Scope, step_rule
from nldsl.spec.program import Rule

NOWHERE = Scope({}, "")


@dataclass
class LiteralOptimiser:
    """Weights by name, what the rule keeps for each (per matrix of a stack), and the applications so far.

    `rule_of(shape)` is the rule at a weight of one shape; `start` gives memories that do not start at zero.
    """

    weights: dict[str, Tensor]
    rule_of: Callable[[tuple[int, ...]], Rule]
    arguments: Mapping[str, float]
    start: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)
    kept: dict[str, list[dict[str, Tensor]]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One application for every weight that has a gradient."""
        for name, g in gradients.items():
            self.steps[name] = self.steps.get(name, 0) + 1
            stacked = self.weights[name].dim() == 3
            parts = list(zip(self.weights[name], g, strict=True)) if stacked else [(self.weights[name], g)]
            new = [self._one(name, h, W, dW) for h, (W, dW) in enumerate(parts)]
            self.weights[name] = torch.stack(new) if stacked else new[0]

    def step_rows(self, name: str, x: Tensor, dy: Tensor) -> None:
        """A rule that looks at inputs: the mean over rows of what it does for each.

        x `[N, in]`, dy `[N, out]` of a loss that is a mean over the rows, so that the row's own is `N dy`.
        """
        W = self.weights[name]
        rule, count = self.rule_of(tuple(W.shape)), len(x)
        moved = []
        for row, d in zip(x, count * dy, strict=True):
            seen = {"g": torch.outer(d, row), "x": row, "dy": d}
            moved.append(step_rule(rule, W, seen, {}, self._arguments(rule, W), 1, NOWHERE)[0] - W)
        self.weights[name] = W + torch.stack(moved).mean(0)

    def _one(self, name: str, head: int, W: Tensor, g: Tensor) -> Tensor:
        rule = self.rule_of(tuple(W.shape))
        held = self.kept.setdefault(name, [])
        if head == len(held):
            held.append(self._fresh(rule, name, head, W))
        seen = {"g": g}
        new, after = step_rule(rule, W, seen, held[head], self._arguments(rule, W), self.steps[name], NOWHERE)
        held[head] = after
        return new

    def _fresh(self, rule: Rule, name: str, head: int, W: Tensor) -> dict[str, Tensor]:
        """What the rule remembers at first: zero, or a drawn value."""
        found: dict[str, Tensor] = {}
        for slot in rule.slots:
            given = self.start.get((name, slot.name))
            if given is not None:
                found[slot.name] = given[head] if self.weights[name].dim() == 3 else given
            else:
                found[slot.name] = W.new_zeros(W.shape if slot.shape is None else slot.shape)
            if slot.visible:
                found[slot.visible] = found[slot.name]
        return found

    def _arguments(self, rule: Rule, like: Tensor) -> dict[str, Tensor]:
        return {n: like.new_tensor(self.arguments[spoken.name]) for n, spoken in rule.arguments}
