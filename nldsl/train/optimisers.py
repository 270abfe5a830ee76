"""The groups of a `train` section in training: each rule compiled, on its clock, under its schedules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from nldsl.catalog.schedules import SCHEDULES
from nldsl.driver.rules import optimizer
from nldsl.spec.program import GroupRule
from nldsl.train.errors import fault
from nldsl.train.groups import Claimed


class OptimiserGroup(Protocol):
    """Parameters that learn by one rule on one clock."""

    name: str
    parameters: dict[str, Tensor]

    @property
    def counts_rows(self) -> bool:
        """Whether the gradients depend on the rows of layers that a step has."""

    def alternate(self, several: bool) -> None:
        """Whether forward and backward passes of one step alternate (see `RuleOptimizer.several_passes`)."""

    def begin(self, step: int, progress: float) -> dict[str, float]:
        """Put the scheduled values of `step` in place, which gradients by rows are already made with."""

    def step(self, step: int, progress: float) -> dict[str, float]:
        """Take in the gradients of `step` (0 first), update if the clock fires; return scheduled values."""

    def state(self) -> dict[str, Tensor]:
        """The optimiser's memories by name, as they must be saved."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put saved memories back; the next step is bit for bit what it would have been."""


class RuleGroup:
    """An `OptimiserGroup` whose rule is compiled like everything else.

    The loop looks at all gradients before any group steps, so the optimizer need not look again.
    Raises `SpecError`: NL0965 for a schedule of something that is no open number of the rule.
    """

    def __init__(self, claimed: Claimed, module: nn.Module | None = None) -> None:
        self.name = claimed.name
        self.rule = claimed.rule
        self.parameters = claimed.parameters
        self.optimizer = optimizer(
            claimed.rule,
            list(claimed.parameters.items()),
            module=module,
            every=claimed.rule.every,
            nonfinite="ignore",
        )
        require_schedules(claimed.rule, self.optimizer.arguments)

    @property
    def counts_rows(self) -> bool:
        """Rules such as `dgd` look at the rows of a layer."""
        return bool(self.optimizer.rows)

    def alternate(self, several: bool) -> None:
        """Pieces, segments and micro-batches: rows are divided by their number as it becomes known."""
        self.optimizer.several_passes = several

    def begin(self, step: int, progress: float) -> dict[str, float]:
        """Put the scheduled values of a step in place."""
        found = scheduled(self.rule, step, progress)
        self.optimizer.param_groups[0].update(found)
        return found

    def step(self, step: int, progress: float) -> dict[str, float]:
        """Take in the gradients of one step; on a slow clock they are summed until it fires."""
        found = self.begin(step, progress)
        self.optimizer.step()
        return found if (step + 1) % self.rule.every == 0 else {}

    def state(self) -> dict[str, Tensor]:
        """Memories as `path:memory`."""
        return {
            f"{path}:{slot}": value
            for path, p in self.parameters.items()
            for slot, value in self.optimizer.state[p].items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put saved memories back.  Raises NL0986 unless they are those of this rule."""
        put_back(self.rule, self.state(), state)


def require_schedules(rule: GroupRule, known: Collection[str]) -> None:
    """Raise NL0965 for a schedule of something that is none of the `known` open numbers of a rule."""
    for argument, schedule, _ in rule.schedules:
        if argument not in known or schedule not in SCHEDULES:
            raise fault("NL0965", f"`{argument}` of `{rule.rule}` cannot follow `{schedule}`")


def put_back(rule: GroupRule, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Put saved memories into a rule's own.  Raises NL0986 unless they have the same names."""
    if state.keys() != own.keys():
        wrong = sorted(state.keys() ^ own.keys())[0]
        raise fault("NL0986", f"the checkpoint is of another rule than `{rule.rule}`: `{wrong}`")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])


def scheduled(rule: GroupRule, step: int, progress: float) -> dict[str, float]:
    """The values of a rule's scheduled arguments at a step."""
    return {name: SCHEDULES[kind].value(step, progress, dict(given)) for name, kind, given in rule.schedules}


def make_groups(claims: list[Claimed], module: nn.Module | None = None) -> list[OptimiserGroup]:
    """One optimiser per group of the plan; `module` is what their parameters belong to."""
    return [RuleGroup(claimed, module) for claimed in claims]
