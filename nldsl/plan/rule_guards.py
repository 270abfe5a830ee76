"""Statements of a rule that only matter when its clock fires, put where they run only then.

`every 10 steps { Q = orthonormal(L @ Q) }` means `Q = where(fires, orthonormal(L @ Q), Q)`; what only the
chosen side needs becomes the body of an `if`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from nldsl.catalog.values import Shape
from nldsl.library import PRIMITIVES
from nldsl.spec.program import Apply, Value


@dataclass(frozen=True)
class Guard:
    """`out = yes if condition else no`; `then` and `otherwise` run only on their side."""

    condition: Value
    out: Value
    yes: Value
    no: Value
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


Step = Apply | Guard


def arranged(
    body: Sequence[Apply], numbers: Collection[str], outputs: Iterable[Value], shape: Shape
) -> tuple[Step, ...]:
    """The body for a weight of `shape`, costly choices on a number as guards, one inside another."""
    users: dict[str, set[str]] = {}
    for step in body:
        for argument in step.args:
            users.setdefault(argument.name, set()).add(step.out.name)
    for value in outputs:
        users.setdefault(value.name, set()).add("the rule")
    return _arranged(body, numbers, users, shape)


def _arranged(
    body: Sequence[Apply], numbers: Collection[str], users: dict[str, set[str]], shape: Shape
) -> tuple[Step, ...]:
    guards: dict[str, Guard] = {}
    moved: set[str] = set()
    for step in reversed(body):
        if step.op != "where" or step.args[0].name not in numbers or step.out.name in moved:
            continue
        condition, yes, no = step.args
        rest = [a for a in body if a.out.name not in moved]
        sides = [_only(rest, step, value, other, users) for value, other in ((yes, no), (no, yes))]
        if not all(_as_large(side, step.out, shape) for side in (yes, no)):
            continue
        if all(PRIMITIVES[a.op].elementwise for side in sides for a in side):
            continue
        moved |= {a.out.name for side in sides for a in side}
        then, otherwise = (_arranged(side, numbers, users, shape) for side in sides)
        guards[step.out.name] = Guard(condition, step.out, yes, no, then, otherwise)
    return tuple(guards.get(a.out.name, a) for a in body if a.out.name not in moved)


def _as_large(side: Value, out: Value, shape: Shape) -> bool:
    """Whether one side has the shape of the choice, or is a number in place of something like the weight."""
    return side.shape == out.shape or (side.shape == () and out.shape == shape)


def _only(
    body: Sequence[Apply], choice: Apply, value: Value, other: Value, users: dict[str, set[str]]
) -> list[Apply]:
    """The statements whose results only `value`, one side of `choice`, needs."""
    kept: list[Apply] = []
    inside: set[str] = set()
    place = next(i for i, a in enumerate(body) if a is choice)
    for step in reversed(body[:place]):
        used = users.get(step.out.name, set())
        direct = step.out == value and step.out != other
        if used and used <= inside | ({choice.out.name} if direct else set()):
            kept.append(step)
            inside.add(step.out.name)
    return kept[::-1]
