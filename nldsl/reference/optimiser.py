"""A rule on the step clock, literally: one weight after the other, one application per step.

The same `step_rule` that gives a write its meaning; here the gradients come from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nldsl.reference.functions import evaluate
from nldsl.reference.inner import Scope, step_rule
from nldsl.spec.program import Rule, Value

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
        """A rule that looks at inputs: weight and memories become the mean of what the rows make of them.

        x `[N, in]`, dy `[N, out]` of a loss that is a mean over the rows, so that the row's own is `N dy`.
        A memory is one for all rows: statements that use its new value see the mean.
        """
        W = self.weights[name]
        rule, count = self.rule_of(tuple(W.shape)), len(x)
        self.steps[name] = step = self.steps.get(name, 0) + 1
        held = self.kept.setdefault(name, [self._fresh(rule, name, 0, W)])
        seen = [{"g": torch.outer(d, row), "x": row, "dy": d} for row, d in zip(x, count * dy, strict=True)]
        common = {"W": W, **held[0], **self._arguments(rule, W), "step": W.new_tensor(float(step))}
        means: dict[str, Tensor] = {}
        order = [s.out.name for s in rule.function.body]
        weight, *slots = rule.function.outputs
        computed = sorted((v for v in slots if v.name in order), key=lambda v: order.index(v.name))
        for value in (*computed, weight):
            if value.name not in means:
                found = [_value(rule, value, {**common, **row}, means) for row in seen]
                means[value.name] = torch.stack(found).mean(0)
        after = {**common, **means}
        self.weights[name] = after[weight.name]
        for slot, value in zip(rule.slots, slots, strict=True):
            held[0][slot.name] = after[value.name]
            if slot.visible and slot.clock is not None and step % slot.clock.every == 0:
                held[0][slot.visible] = after[value.name]

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


def _value(rule: Rule, value: Value, env: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> Tensor:
    """What one row makes of a value, where the values in `means` are known for all rows."""
    rest = tuple(s for s in rule.function.body if s.out.name not in means)
    function = replace(rule.function, body=rest, outputs=(value,))
    return evaluate(function, {**env, **means}, NOWHERE.parameters, NOWHERE.prefix)[0]
