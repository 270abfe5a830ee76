"""Who trains what: every slow parameter is claimed by exactly one group of the `train` section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nldsl.catalog.selectors import ROLES, first_match
from nldsl.catalog.values import Options, Role
from nldsl.diagnostics import did_you_mean
from nldsl.spec.program import GroupRule, Program, TrainPlan
from nldsl.spec.step_slots import step_groups
from nldsl.spec.walk import parameters_of
from nldsl.train.errors import fault

DEFAULT_GROUPS = (GroupRule(selectors=("rest",), rule="adamw", arguments=(("lr", 3e-3),), schedules=()),)
"""What trains a model that declares no `train` section: AdamW on everything."""


def training_plan(program: Program) -> TrainPlan:
    """The `train` section; of a model that declares none, AdamW on everything but memories on step clocks."""
    groups = (*step_groups(program.root), *DEFAULT_GROUPS)
    return program.train or TrainPlan("next_token", "trunc", groups)


def inner_schedules(program: Program) -> dict[str, tuple[str, Options]]:
    """The rates of writes that follow the steps of training, by path: a schedule and its options."""
    return {path: p.schedule for path, p in parameters_of(program.root) if p.schedule is not None}


@dataclass(frozen=True)
class Claimed:
    """A group's rule and the parameters it trains, by path."""

    rule: GroupRule
    parameters: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The selectors as written, for logs."""
        return "+".join(self.rule.selectors)


def claim(plan: TrainPlan, parameters: Mapping[str, Tensor], roles: Mapping[str, Role]) -> list[Claimed]:
    """Give every parameter to the first group whose selector matches it.

    A selector is a role (`matrices embeddings head norms`), a glob over paths (indices may be left
    out: `blocks.*` matches `blocks[3].q.linear.weight`), or `rest`: the role `rest` and whatever no
    other selector of the plan matches, wherever `rest` stands.
    Raises `SpecError`: NL0961 if a parameter is claimed by nobody, NL0962 if a selector matches
    nothing or is unknown.
    """
    claimed: list[dict[str, Tensor]] = [{} for _ in plan.groups]
    used: set[tuple[int, str]] = set()
    orphans = []
    for path, parameter in parameters.items():
        hit = first_match([g.selectors for g in plan.groups], path, roles[path])
        if hit is None:
            orphans.append(path)
            continue
        claimed[hit[0]][path] = parameter
        used.add(hit)
    if orphans:
        shown = ", ".join(f"`{p}`" for p in orphans[:3]) + (" and others" if len(orphans) > 3 else "")
        raise fault(
            "NL0961",
            f"no group of `train` claims {shown}",
            help="add the group `rest by adamw(lr = 3e-4)`",
            span=plan.span,
        )
    refuse_idle_globs(plan, used)
    return [Claimed(g, p) for g, p in zip(plan.groups, claimed, strict=True) if p]


def refuse_idle_globs(plan: TrainPlan, used: set[tuple[int, str]]) -> None:
    """Raise NL0962 for a glob that claims nothing: it is misspelt, or an earlier group takes it all."""
    for index, group in enumerate(plan.groups):
        for selector in group.selectors:
            if selector not in ROLES and (index, selector) not in used:
                raise fault(
                    "NL0962",
                    f"`{selector}` claims no parameter",
                    help=did_you_mean(selector, ROLES)
                    or "see the paths with `nldsl explain`; first match wins",
                    span=plan.span,
                )
