"""The rule of a group of parameters as one writes it."""

from __future__ import annotations

from nldsl.catalog.schedules import SCHEDULES
from nldsl.catalog.values import Options
from nldsl.graph.equations import number
from nldsl.spec.program import GroupRule


def group_label(group: GroupRule) -> str:
    """`muon(lr = 0.02)`, schedules as one writes them: `lr = cosine(0.02, warmup = 100)`."""
    scheduled = {name: f"{name} = {_schedule(kind, options)}" for name, kind, options in group.schedules}
    fixed = [
        t
        for (n, _), t in zip(group.arguments, written_options(group.arguments), strict=True)
        if n not in scheduled
    ]
    return f"{group.rule}({', '.join([*scheduled.values(), *fixed])})"


def _schedule(kind: str, options: Options) -> str:
    """A schedule with its value in front, and what is not as it would be without a word."""
    given = dict(options)
    value, *others = SCHEDULES[kind].options
    said = [
        f"{o.name} = {number(given[o.name])}" for o in others if given.get(o.name, o.default) != o.default
    ]
    return f"{kind}({', '.join([number(given[value.name]), *said])})"


def written_options(options: Options) -> list[str]:
    """`name = value` of everything that was given."""
    return [f"{name} = {number(value)}" for name, value in options if value is not None]
