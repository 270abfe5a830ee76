"""Who trains what: every slow parameter is claimed by exactly one group of the `train` section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from nldsl.catalog.values import Role
from nldsl.diagnostics import did_you_mean
from nldsl.spec.program import GroupRule, TrainPlan
from nldsl.train.errors import fault

ROLES: dict[str, Role] = {
    "matrices": "matrix",
    "embeddings": "embedding",
    "head": "head",
    "norms": "norm",
    "rest": "rest",
}

DEFAULT_GROUPS = (GroupRule(selectors=("rest",), rule="adamw", arguments=(("lr", 3e-3),), schedules=()),)
"""What trains a model that declares no `train` section: AdamW on everything."""


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
        hit = first_match(plan, path, roles[path])
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


def first_match(plan: TrainPlan, path: str, role: Role) -> tuple[int, str] | None:
    """The first group and selector that claim `path`; `rest` takes what is left over."""
    for index, group in enumerate(plan.groups):
        for selector in group.selectors:
            if ROLES.get(selector) == role or (selector not in ROLES and matches(selector, path)):
                return index, selector
    for index, group in enumerate(plan.groups):
        if "rest" in group.selectors:
            return index, "rest"
    return None


def matches(glob: str, path: str) -> bool:
    """Whether the glob means the path, with or without its indices.

    Example:
        >>> matches("blocks[*].q.*", "blocks[3].q.weight"), matches("blocks.q.*", "blocks[3].q.weight")
        (True, True)
    """
    literal = glob.replace("[", "\0").replace("]", "\1")
    marked = path.replace("[", "\0").replace("]", "\1")
    if fnmatchcase(marked, literal):
        return True
    return fnmatchcase(strip_indices(path), glob)


def strip_indices(path: str) -> str:
    """The path without its `[i]`.

    Example:
        >>> strip_indices("blocks[3].F[1].W1")
        'blocks.F.W1'
    """
    return "".join(piece.rpartition("]")[2] if i else piece for i, piece in enumerate(path.split("[")))


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
