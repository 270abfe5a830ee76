"""The inner problem: the gradient of a declared objective with respect to a memory, and one step of a rule.

This file is the meaning of the word "minimize".  The gradient is `torch.func.grad` of the objective as
it is written, evaluated through the memory's map at the base state, with respect to the memory's
weights only.  Keys, targets and rates enter as plain tensors: constants of the inner problem, through
which the outer gradient nevertheless flows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nldsl.reference.functions import Recorder, Weights, evaluate
from nldsl.spec.program import Function, Rule


@dataclass(frozen=True)
class Lesson:
    """What one token asks of one copy of a memory: keys, targets, the weight of its gradient.

    There is more than one pair only if several heads share the copy; their objectives add up.
    """

    keys: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    weight: Tensor | None = None


@dataclass(frozen=True)
class Evidence:
    """What a rule may see: gradient `g`, own input `x`, output gradient `dy`, per weight of one copy."""

    g: Weights
    x: Weights
    dy: Weights


@dataclass(frozen=True)
class Scope:
    """Where the slow parameters of a block are found."""

    parameters: Mapping[str, Tensor]
    prefix: str


def read_map(function: Function, weights: Weights, key: Tensor, scope: Scope) -> Tensor:
    """`M(key)` with the given weights (Eq. 70, 83, 89)."""
    return evaluate(function, {function.inputs[0].name: key, **weights}, scope.parameters, scope.prefix)[0]


def objective_value(
    function: Function,
    objective: Function,
    weights: Weights,
    key: Tensor,
    target: Tensor,
    scope: Scope,
    seen: Recorder,
) -> Tensor:
    """`L(M(key), target)`; an objective with a third argument also sees the memory's weights (Eq. 66)."""
    inputs = {function.inputs[0].name: key, **weights}
    (pred,) = evaluate(function, inputs, scope.parameters, scope.prefix, seen)
    names = [v.name for v in objective.inputs]
    # A number is a target for every channel.
    env = {names[0]: pred, names[1]: target.expand(pred.shape) if target.dim() == 0 else target}
    own = [*names[2:], *(w.name for w in objective.weights)]
    env.update(zip(own, weights.values(), strict=False))
    return evaluate(objective, env, scope.parameters, scope.prefix)[0]


def evidence(
    function: Function,
    objective: Function,
    base: Weights,
    lesson: Lesson,
    scope: Scope,
    first_order: bool = False,
) -> Evidence:
    """Gradient, own inputs and output gradients of one lesson at the base state.

    `init learned("first")`: the base enters detached.  What is cut is exactly the dependence of the
    inner gradient (and of `x`, `dy`) on the memory's own past; states, keys, targets and rates keep
    their outer gradient, so the initial state receives the first-order meta-gradient (Eq. 28).
    """
    at = {name: w.detach() for name, w in base.items()} if first_order else base

    def loss(weights: Weights, probes: Weights) -> tuple[Tensor, Weights]:
        parts = []
        for key, target in zip(lesson.keys, lesson.targets, strict=True):
            seen = Recorder(probes)
            parts.append(objective_value(function, objective, weights, key, target, scope, seen))
        return torch.stack(parts).sum(), {n: z for n, z in seen.inputs.items() if n not in seen.ambiguous}

    probes = {name: w.new_zeros(w.shape[0]) for name, w in at.items() if w.dim() == 2}
    (g, dy), x = torch.func.grad(loss, argnums=(0, 1), has_aux=True)(at, probes)
    x = {} if len(lesson.keys) > 1 else x
    dy = {name: d for name, d in dy.items() if name in x}
    if lesson.weight is not None:
        g = {name: lesson.weight * d for name, d in g.items()}
        dy = {name: lesson.weight * d for name, d in dy.items()}
    return Evidence(g, x, dy)


def add(parts: Sequence[Evidence]) -> Evidence:
    """Gradients summed; `x` and `dy` are those of the last (the current) token."""
    g = {name: torch.stack([p.g[name] for p in parts]).sum(0) for name in parts[0].g}
    return Evidence(g, parts[-1].x, parts[-1].dy)


def step_rule(
    rule: Rule,
    weight: Tensor,
    seen: Mapping[str, Tensor],
    slots: Mapping[str, Tensor],
    arguments: Mapping[str, Tensor],
    step: int,
    scope: Scope,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One application of a rule to one weight: its new value, and the new slots.

    `weight` is what the rule is given, `W - r`; `seen` holds `g` and, where the weight has them, `x`
    and `dy`; `step` counts applications from one.
    """
    env = {"W": weight, **seen, **slots, **arguments, "step": torch.tensor(float(step), dtype=weight.dtype)}
    missing = [v.name for v in rule.function.inputs if v.name not in env]
    if missing:
        raise ValueError(f"rule `{rule.name}` needs `{missing[0]}`, which this weight does not have")
    new, *kept = evaluate(rule.function, env, scope.parameters, scope.prefix)
    after: dict[str, Tensor] = {}
    for slot, value in zip(rule.slots, kept, strict=True):
        after[slot.name] = value
        if slot.visible and slot.clock is not None:
            after[slot.visible] = value if step % slot.clock.every == 0 else slots[slot.visible]
    return new, after


def slot_names(rule: Rule) -> list[str]:
    """What a rule remembers per weight: every slot, and what others see of one on a slow clock.

    A slot on a clock of N steps gathers at every step; its visible twin takes its value behind every
    N-th application (what M3 gathered in one period is used in the next; Alg. 1, reading P12).
    """
    return [name for slot in rule.slots for name in (slot.name, slot.visible) if name]
