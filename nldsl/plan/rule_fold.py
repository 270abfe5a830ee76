"""Numbers known at compile time, and the identities they leave, in the body of a rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nldsl.catalog.numeric import np
from nldsl.library import PRIMITIVES
from nldsl.spec.program import Apply, Value, option

NEUTRAL = {("mul", 0): 1.0, ("mul", 1): 1.0, ("add", 0): 0.0, ("add", 1): 0.0, ("sub", 1): 0.0,
           ("div", 1): 1.0, ("pow", 1): 1.0}  # fmt: skip
"""(operation, position): the number that leaves the other operand as it is."""


@dataclass(frozen=True)
class Folded:
    """A body without arithmetic on constants; `same` says which values are others under a second name."""

    body: tuple[Apply, ...]
    literals: dict[str, float]
    same: dict[str, Value]


def folded(body: Sequence[Apply]) -> Folded:
    """The body without arithmetic on constants, and the constants by name.

    `unbias(m, beta, step)` is written out, so that its divisor is a number of its own.
    """
    literals: dict[str, float] = {}
    same: dict[str, Value] = {}
    kept: list[Apply] = []
    for original in _plain(body):
        step = replace(original, args=tuple(same.get(a.name, a) for a in original.args))
        step = _reset(step, kept, literals)
        value = _constant(step, literals)
        if value is not None:
            literals[step.out.name] = value
        elif (left := _neutral(step, literals)) is not None:
            same[step.out.name] = left
        else:
            kept.append(step)
    return Folded(tuple(kept), literals, same)


def _reset(step: Apply, before: Sequence[Apply], literals: dict[str, float]) -> Apply:
    """`where(fires, where(1, n, m), m)`, a memory that starts again at a number, without the inner choice."""
    if step.op != "where" or step.args[2].shape != step.out.shape:
        return step
    inner = next((a for a in before if a.out == step.args[1]), None)
    if inner is None or inner.op != "where" or literals.get(inner.args[0].name) != 1:
        return step
    return replace(step, args=(step.args[0], inner.args[1], step.args[2]))


def constants(
    body: Sequence[Apply], literals: dict[str, float]
) -> tuple[tuple[Apply, ...], dict[str, float]]:
    """What is left of arithmetic on numbers, and all constants by name."""
    known, kept = dict(literals), list[Apply]()
    for step in body:
        value = _constant(step, known)
        if value is None:
            kept.append(step)
        else:
            known[step.out.name] = value
    return tuple(kept), known


def _plain(body: Sequence[Apply]) -> Iterator[Apply]:
    for step in body:
        if step.op != "unbias":
            yield step
            continue
        mean, beta, count = step.args
        power, left = (Value(f"{step.out.name}_{n}", (), "scalar") for n in ("power", "share"))
        one = Value(f"{step.out.name}_one", (), "scalar")
        yield Apply(one, "constant", (), (("value", 1),))
        yield Apply(power, "pow", (beta, count))
        yield Apply(left, "sub", (one, power))
        yield Apply(step.out, "div", (mean, left))


def _constant(step: Apply, literals: dict[str, float]) -> float | None:
    """The value of a statement whose operands are all constants."""
    if step.op == "constant":
        value = option(step.options, "value")
        assert isinstance(value, int | float)
        return value
    known = [literals[a.name] for a in step.args if a.name in literals]
    if not step.args or len(known) < len(step.args) or step.out.shape or not PRIMITIVES[step.op].elementwise:
        return None
    reference = PRIMITIVES[step.op].reference
    assert reference is not None
    with np.errstate(all="ignore"):
        result = float(reference(*map(np.float64, known)))
    return result if math.isfinite(result) else None


def _neutral(step: Apply, literals: dict[str, float]) -> Value | None:
    """The operand that a statement returns unchanged."""
    for i, operand in enumerate(step.args):
        if literals.get(operand.name) != NEUTRAL.get((step.op, i), math.nan) or len(step.args) != 2:
            continue
        other = step.args[1 - i]
        if other.shape == step.out.shape and other.kind == step.out.kind:
            return other
    return None
