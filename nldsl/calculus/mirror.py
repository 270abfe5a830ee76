"""Rules that step in a dual: the weights are a function of a memory that steps linearly (mirror descent)."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.calculus.expression import Expr, number, symbols, walk
from nldsl.calculus.rules import RuleSymbols, coefficients, lifted
from nldsl.calculus.simplify import build, substitute
from nldsl.catalog.primitive import ContractError
from nldsl.catalog.values import Shape
from nldsl.spec.program import Rule


@dataclass(frozen=True)
class MirrorForm:
    """`A' = keep * A - rate * g` in the slot `A`, and `W' = link`, where `dual` stands for `A'`.

    `seeded`: before the first step the dual is the weight itself, else zero.  Coefficients are scalars over
    the rule's arguments and the weight's input `x`.
    """

    slot: str
    keep: Expr
    rate: Expr
    link: Expr
    dual: Expr
    seeded: bool
    x: Expr


def mirror_form(rule: Rule, shape: Shape) -> MirrorForm | None:
    """The dual form of one application of `rule` to a weight of this shape, if it has one.

    The dual may begin where the weight does, written `where(step == 1, W, A)`.
    """
    if len(rule.slots) != 1 or rule.slots[0].clock is not None or rule.slots[0].shape is not None:
        return None
    s = RuleSymbols.of(shape)
    try:
        (weight, stepped), ((old, new),) = lifted(rule, s, shape)
    except (KeyError, ContractError, ValueError):
        return None
    if set(symbols(weight)) != {new}:
        return None
    start = build("where", build("eq", s.step, 1.0), s.weight, old)
    seeded = start in set(walk([stepped]))
    inner = coefficients(substitute(stepped, {start: old}), (s.weight, s.gradient, s.dy, s.step, old, new), s)
    if inner is None or set(inner) - {old, s.gradient} or old not in inner:
        return None
    rate = build("neg", inner.get(s.gradient, number(0.0)))
    return MirrorForm(old.name, inner[old], rate, weight, new, seeded, s.x)
