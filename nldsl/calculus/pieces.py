"""A write to a matrix memory as rank-one pieces: what the symbolic test for classes D and R reads off.

Nothing here knows a rule or an objective by name.  The gradient is put into the rule, the new weight is
brought into normal form, and its summands are sorted: a multiple of the old weight, `(W s) a^T` (it erases
along the key), `a (W^T s)^T` (along the value), or an outer product free of the weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from nldsl.calculus import polynomial as poly
from nldsl.calculus.differentiate import MapGradient
from nldsl.calculus.expression import Expr, depends, symbol, symbols
from nldsl.calculus.mixed import Mixed, Telling, mixed_step, of_filter
from nldsl.calculus.normal import normal
from nldsl.calculus.polynomial import TooLargeError
from nldsl.calculus.rules import RuleSymbols, lifted
from nldsl.calculus.simplify import build, substitute
from nldsl.calculus.sorting import (
    PAST,
    WEIGHTING,
    Moving,
    NotRankOneError,
    Piece,
    Side,
    Sorted,
    pieces_of,
    sort,
)
from nldsl.calculus.stacks import StackedMap, stacked
from nldsl.catalog.primitive import ContractError
from nldsl.spec.program import Memory, Term

__all__ = ["PAST", "WEIGHTING", "NotRankOneError", "Piece", "Side"]


@dataclass(frozen=True)
class TermForm:
    """One term: `W' = keep W + pieces`, or with a filter `m' = beta m + pieces`, `W' = keep W + read m'`.

    `side` is `None` where nothing is erased: then either side will do, and `turned` are the pieces as
    the value side has them (`along` and `add` exchanged).  `mixed`: how weight and slots step together, for
    any linear rule with slots; a `momentum` is the case of one filter before the weight.
    """

    side: Side | None
    keep: Expr
    pieces: tuple[Piece, ...]
    momentum: tuple[Expr, Expr] | None
    turned: tuple[Piece, ...] = ()
    mixed: Mixed | None = None
    turned_mixed: Mixed | None = None

    def mixing(self) -> Mixed:
        """How weight and slots step; a rule without slots moves the weight alone."""
        if self.mixed is not None:
            return self.mixed
        return of_filter(self.keep, self.momentum, len(self.pieces))


def term_form(memory: Memory, term: Term, toward_start: bool, several: bool) -> TermForm:
    """The rank-one pieces of one term of a memory whose map is one matrix, asked once.

    toward_start: the rule is given `W - r`, the gradient looks at `W`.  several: the gradient is a sum
    over lessons (a window, or several keys of one copy), so the rule must be linear in it.

    Errors: `NotRankOneError`.
    """
    assert memory.function is not None
    told, (found,) = stacked(memory.function, [term.objective])
    if not told.plain:
        raise NotRankOneError(f"map `{memory.function.name}` is not one matrix, asked once")
    return _form_of(term, found, 0, toward_start, several)


def stacked_forms(
    memory: Memory, terms: Sequence[Term], toward_start: bool
) -> tuple[StackedMap, tuple[tuple[TermForm, ...], ...]]:
    """The map in stacks, and for every stack the rank-one pieces of every term.

    Errors: `NotRankOneError`.
    """
    assert memory.function is not None
    told, found = stacked(memory.function, [t.objective for t in terms])
    forms = tuple(
        tuple(
            _form_of(term, one, i, toward_start, not told.alone(i))
            for term, one in zip(terms, found, strict=True)
        )
        for i in range(len(told.stacks))
    )
    return told, forms


def _form_of(term: Term, found: MapGradient, place: int, toward_start: bool, several: bool) -> TermForm:
    """One term at one weight."""
    weight = found.weights[place]
    offset = symbol("distance", weight.shape, "matrix", role="weight") if toward_start else weight
    try:
        outputs, slots, s = _rule(term, weight.shape)
        if several or term.window > 1:
            _check_linear(term, outputs, s)
        if several and any(depends(e, [s.x, s.dy]) for e in outputs):
            raise NotRankOneError(
                f"rule `{term.rule.name}` asks for the input of a weight, and here weights meet in one error "
                "or one has several inputs"
            )
        known = _lesson(found, place, term, s, offset, several)
        main, *rest = (substitute(e, known) for e in outputs)
        moving = Moving(weight, offset, tuple(p for pair in slots for p in pair))
        form = _form(term, main, rest, slots, moving) if len(slots) < 2 else None
        return form or _mixed(term, (s, known), moving)
    except TooLargeError:
        raise NotRankOneError("the step is too large to analyse") from None


def _mixed(term: Term, told: tuple[RuleSymbols, dict[Expr, Expr]], moving: Moving) -> TermForm:
    """Weight and slots step together, whatever the rule mixes them by."""
    s, known = told
    outputs, pairs = lifted(term.rule, s, moving.weight.shape, cut=False)
    olds = (s.weight, *(old for old, _ in pairs))
    telling = Telling(s, olds, known, moving.weight, moving.offset)
    side, (pieces, mixed), (turned, turned_mixed) = mixed_step(term.rule.name, outputs, telling)
    return TermForm(side, mixed.rows[0][0], pieces, None, turned, mixed, turned_mixed)


ROW = "row"
"""Role of the symbols `x` and `dy` of one weight in the answer of `rule_pieces`."""


def rule_pieces(term: Term, shape: tuple[int, ...]) -> TermForm:
    """The pieces a rule moves one weight by where its gradient is `dy x^T`, over `x` and `dy` (role `ROW`).

    Nothing is asked about the gradient: it may be taken anywhere.

    Errors: `NotRankOneError`.
    """
    if len(shape) != 2:
        raise NotRankOneError("a bias has no rank")
    try:
        outputs, slots, s = _rule(term, shape)
        if any(depends(e, [s.step]) for e in outputs):
            raise NotRankOneError(f"rule `{term.rule.name}` depends on the number of the step")
        W, x, dy = (symbol(e.name, e.shape, e.kind, role=ROW) for e in (s.weight, s.x, s.dy))
        known = {s.weight: W, s.gradient: build("outer", dy, x), s.x: x, s.dy: dy}
        main, *rest = (substitute(e, known) for e in outputs)
        moving = Moving(W, W, tuple(p for pair in slots for p in pair))
        form = _form(term, main, rest, slots, moving) if len(slots) < 2 else None
    except TooLargeError:
        raise NotRankOneError("the step is too large to analyse") from None
    if form is None:
        raise NotRankOneError(f"rule `{term.rule.name}` is more than one filter in front of the weight")
    return form


def _rule(
    term: Term, shape: tuple[int, ...]
) -> tuple[tuple[Expr, ...], list[tuple[Expr, Expr]], RuleSymbols]:
    name = term.rule.name
    if any(slot.clock is not None or slot.shape is not None for slot in term.rule.slots):
        raise NotRankOneError(f"a memory of rule `{name}` has a clock, a shape or a map of its own")
    s = RuleSymbols.of(shape)
    try:
        outputs, slots = lifted(term.rule, s, shape)
    except (KeyError, ContractError) as reason:
        raise NotRankOneError(f"rule `{name}` does not fit this weight: {reason}") from None
    return outputs, slots, s


def _check_linear(term: Term, outputs: tuple[Expr, ...], s: RuleSymbols) -> None:
    """A sum of gradients may be taken apart only if the rule is linear in it."""
    for output in outputs:
        for (atoms, left, right), c in normal(output).terms.items():
            powers = [
                (a, e) for p in (atoms, left, right, *c) for a, e in p if depends(a, [s.gradient, s.dy])
            ]
            if powers and not (powers == [(s.gradient, Fraction(1))] and powers[0] in atoms):
                what = "of several lessons" if term.window > 1 else "that is a sum over several uses"
                raise NotRankOneError(f"rule `{term.rule.name}` is not linear in a gradient {what}")


def _lesson(
    found: MapGradient, place: int, term: Term, s: RuleSymbols, offset: Expr, several: bool
) -> dict[Expr, Expr]:
    """What the symbols of the rule stand for."""
    mine = found.gradients[place]
    g, known, dy = mine.expression, {s.weight: offset}, mine.dy
    if term.window > 1:
        g = substitute(
            g, {e: symbol(e.name, e.shape, e.kind, e.axes, PAST) for e in (found.key, found.target)}
        )
    if term.weight is not None or term.window > 1:
        weighting = symbol(WEIGHTING, role=PAST)
        g = build("mul", weighting, g)
        dy = None if dy is None else build("mul", weighting, dy)
    known[s.gradient] = g
    if mine.x is not None and not several:
        known[s.x] = mine.x
        if dy is not None and term.window == 1:
            known[s.dy] = dy
    return known


def _form(
    term: Term, main: Expr, rest: list[Expr], slots: list[tuple[Expr, Expr]], moving: Moving
) -> TermForm | None:
    """Sort the new weight, and the filter if there is one; `None` if it is not one in front of the weight."""
    name = term.rule.name
    _leftover(name, [main, *rest])
    weight = sort(main, moving, name)
    keep = poly.to_expr(weight.scales.pop(moving.offset, {}))
    if not slots:
        if weight.scales:
            raise NotRankOneError("it scales the memory and not its distance from the initial state")
        return _assembled(weight, moving, keep, None)
    old, new = slots[0]
    read = weight.scales.pop(new, {})
    if weight.scales or weight.key_side or weight.value_side or weight.free:
        return None
    filtered = sort(rest[0], moving, name)
    beta = filtered.scales.pop(old, {})
    looked = {
        state for side in (filtered.key_side, filtered.value_side) for t in side.values() for state in t
    }
    if filtered.scales or looked - {moving.weight, moving.offset}:
        return None
    return _assembled(filtered, moving, keep, (poly.to_expr(beta), poly.to_expr(read)))


def _leftover(name: str, outputs: list[Expr]) -> None:
    """The rule asks for `x` or `dy`, and there is none."""
    asked = {s.name for e in outputs for s in symbols(e) if s.role == "rule"} - {"step"}
    if asked:
        raise NotRankOneError(f"rule `{name}` asks for `{min(asked)}`, which this weight does not have")


def _assembled(found: Sorted, moving: Moving, keep: Expr, momentum: tuple[Expr, Expr] | None) -> TermForm:
    if found.key_side and found.value_side:
        raise NotRankOneError("it erases along the key and along the value at once")
    side: Side | None = "key" if found.key_side else "value" if found.value_side else None
    if side is None:
        pieces, turned = pieces_of(found, "key", moving), pieces_of(found, "value", moving)
        return TermForm(None, keep, pieces, momentum, turned)
    return TermForm(side, keep, pieces_of(found, side, moving), momentum)
