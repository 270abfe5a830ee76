"""A write to a matrix memory as rank-one pieces: what the symbolic test for classes D and R reads off.

Nothing here knows a rule or an objective by name.  The gradient is put into the rule, the new weight is
brought into normal form, and its summands are sorted: a multiple of the old weight, `(W s) a^T` (it erases
along the key), `a (W^T s)^T` (along the value), or an outer product free of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from nldsl.calculus import polynomial as poly
from nldsl.calculus.differentiate import MapGradient, NotDifferentiableError, gradient
from nldsl.calculus.expression import Expr, depends, number, symbol, symbols, walk
from nldsl.calculus.lift import lift, value_symbol, weight_symbol
from nldsl.calculus.normal import Basis, normal
from nldsl.calculus.polynomial import Poly, Powers, TooLargeError
from nldsl.calculus.rules import RuleSymbols, lifted
from nldsl.calculus.simplify import build, substitute
from nldsl.catalog.primitive import ContractError
from nldsl.spec.program import Function, Memory, Term

Side = Literal["key", "value"]
PAST = "past"
"""Role of the symbols of a lesson that may lie some tokens back (`over c tokens`)."""
WEIGHTING = "weighting"
"""Name of the symbol for the weight of a lesson (`weighted gamma`)."""


class NotRankOneError(ValueError):
    """The step has no such form; the message says why."""


@dataclass(frozen=True)
class Piece:
    """`(add - erase * (W seen)) along^T`; on the value side `along (add - erase * (W^T seen))^T`.

    `seen` and `erase` are `None` where nothing is erased.  `from_state` is the part of `erase` that looks
    at the memory itself where the rest looks at its distance from the initial state.  `lagged`: one such
    piece for every token of the window.
    """

    along: Expr
    seen: Expr | None
    erase: Expr | None
    add: Expr
    from_state: Expr | None
    lagged: bool


@dataclass(frozen=True)
class TermForm:
    """One term: `W' = keep W + pieces`, or with a filter `m' = beta m + pieces`, `W' = keep W + read m'`.

    `side` is `None` where nothing is erased: then either side will do, and `turned` are the pieces as
    the value side has them (`along` and `add` exchanged).
    """

    side: Side | None
    keep: Expr
    pieces: tuple[Piece, ...]
    momentum: tuple[Expr, Expr] | None
    turned: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class MapRead:
    """`map(key)` with the matrix's part in it: `matrix @ asked`, then `result` of the symbol `answer`."""

    asked: Expr
    answer: Expr
    result: Expr


def map_read(function: Function) -> MapRead:
    """How a map reads its one matrix.

    Errors: `NotRankOneError` if it is not one matrix used at one place.
    """
    shapes = [w.shape for w in function.weights]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise NotRankOneError(f"map `{function.name}` is not one matrix ({len(shapes)} weights)")
    if any(a.parameters for a in function.body):
        raise NotRankOneError(f"map `{function.name}` has slow parameters of its own")
    matrix = weight_symbol(function.weights[0].name, shapes[0])
    key = value_symbol(function.inputs[0], "key", "key")
    known = {function.weights[0].name: matrix, function.inputs[0].name: key}
    (forward,) = lift(function, known)
    uses = [e for e in walk([forward]) if matrix in e.args]
    plain = len(uses) == 1 and uses[0].op == "matmul" and uses[0].args[0] is matrix
    if not plain or uses[0].kind != "vector" or depends(uses[0].args[1], [matrix]):
        raise NotRankOneError(f"map `{function.name}` does not use its matrix once, as `W @ z`")
    answer = symbol("answer", uses[0].shape, "vector", role="answer")
    return MapRead(uses[0].args[1], answer, substitute(forward, {uses[0]: answer}))


def term_form(memory: Memory, term: Term, toward_start: bool, several: bool) -> TermForm:
    """The rank-one pieces of one term.

    toward_start: the rule is given `W - r`, the gradient looks at `W`.  several: the gradient is a sum
    over lessons (a window, or several keys of one copy), so the rule must be linear in it.

    Errors: `NotRankOneError`.
    """
    assert memory.function is not None
    found = _gradient(memory, term)
    weight = found.weights[0]
    offset = symbol("distance", weight.shape, "matrix", role="weight") if toward_start else weight
    try:
        outputs, slots, s = _rule(term, weight.shape)
        if several or term.window > 1:
            _check_linear(term, outputs, s)
        known = _lesson(found, term, s, offset, several)
        main, *rest = (substitute(e, known) for e in outputs)
        moving = _Moving(weight, offset, tuple(p for pair in slots for p in pair))
        return _form(term, main, rest, slots, moving)
    except TooLargeError:
        raise NotRankOneError("the step is too large to analyse") from None


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
        W, x, dy = (symbol(e.name, e.shape, e.kind, role=ROW) for e in (s.weight, s.x, s.dy))
        known = {s.weight: W, s.gradient: build("outer", dy, x), s.x: x, s.dy: dy}
        main, *rest = (substitute(e, known) for e in outputs)
        moving = _Moving(W, W, tuple(p for pair in slots for p in pair))
        return _form(term, main, rest, slots, moving)
    except TooLargeError:
        raise NotRankOneError("the step is too large to analyse") from None


def _gradient(memory: Memory, term: Term) -> MapGradient:
    assert memory.function is not None
    map_read(memory.function)
    try:
        return gradient(memory.function, term.objective)
    except NotDifferentiableError as reason:
        raise NotRankOneError(str(reason)) from None


def _rule(
    term: Term, shape: tuple[int, ...]
) -> tuple[tuple[Expr, ...], list[tuple[Expr, Expr]], RuleSymbols]:
    name = term.rule.name
    if any(slot.clock is not None or slot.shape is not None for slot in term.rule.slots):
        raise NotRankOneError(f"a memory of rule `{name}` has a clock or a map of its own")
    if len(term.rule.slots) > 1:
        raise NotRankOneError(f"rule `{name}` keeps {len(term.rule.slots)} memories of its own")
    s = RuleSymbols.of(shape)
    try:
        outputs, slots = lifted(term.rule, s, shape)
    except (KeyError, ContractError) as reason:
        raise NotRankOneError(f"rule `{name}` does not fit this weight: {reason}") from None
    if any(depends(e, [s.step]) for e in outputs):
        raise NotRankOneError(f"rule `{name}` depends on the number of the step")
    return outputs, slots, s


def _check_linear(term: Term, outputs: tuple[Expr, ...], s: RuleSymbols) -> None:
    """A sum of gradients may be taken apart only if the rule is linear in it."""
    for output in outputs:
        for (atoms, left, right), c in normal(output).terms.items():
            powers = [
                (a, e) for p in (atoms, left, right, *c) for a, e in p if depends(a, [s.gradient, s.dy])
            ]
            if powers and not (powers == [(s.gradient, Fraction(1))] and powers[0] in atoms):
                raise NotRankOneError(
                    f"rule `{term.rule.name}` is not linear in a gradient of several lessons"
                )


def _lesson(found: MapGradient, term: Term, s: RuleSymbols, offset: Expr, several: bool) -> dict[Expr, Expr]:
    """What the symbols of the rule stand for."""
    g, known = found.gradients[0].expression, {s.weight: offset}
    dy = found.gradients[0].dy
    if term.window > 1:
        g = substitute(
            g, {e: symbol(e.name, e.shape, e.kind, e.axes, PAST) for e in (found.key, found.target)}
        )
    if term.weight is not None or term.window > 1:
        weighting = symbol(WEIGHTING, role=PAST)
        g = build("mul", weighting, g)
        dy = None if dy is None else build("mul", weighting, dy)
    known[s.gradient] = g
    if found.gradients[0].x is not None and not several:
        known[s.x] = found.gradients[0].x
        if dy is not None and term.window == 1:
            known[s.dy] = dy
    return known


@dataclass(frozen=True)
class _Moving:
    """What changes: the memory, its distance from the start (the same symbol if that is zero), slots."""

    weight: Expr
    offset: Expr
    slots: tuple[Expr, ...]

    @property
    def all(self) -> tuple[Expr, ...]:
        return (self.weight, self.offset, *self.slots)


@dataclass
class _Sorted:
    """The summands of one new state."""

    scales: dict[Expr, Poly] = field(default_factory=dict)
    key_side: dict[tuple[Expr, Powers], dict[Expr, Poly]] = field(default_factory=dict)
    value_side: dict[tuple[Expr, Powers], dict[Expr, Poly]] = field(default_factory=dict)
    free: list[tuple[Powers, Powers, Poly]] = field(default_factory=list)


def _form(
    term: Term, main: Expr, rest: list[Expr], slots: list[tuple[Expr, Expr]], moving: _Moving
) -> TermForm:
    """Sort the new weight, and the filter if there is one."""
    name = term.rule.name
    _leftover(name, [main, *rest])
    weight = _sort(main, moving, name)
    keep = poly.to_expr(weight.scales.pop(moving.offset, {}))
    if not slots:
        if weight.scales:
            raise NotRankOneError("it scales the memory and not its distance from the initial state")
        return _assembled(weight, moving, keep, None)
    old, new = slots[0]
    read = weight.scales.pop(new, {})
    if weight.scales or weight.key_side or weight.value_side or weight.free:
        raise NotRankOneError(f"rule `{name}` steps beside its memory of gradients")
    filtered = _sort(rest[0], moving, name)
    beta = filtered.scales.pop(old, {})
    if filtered.scales:
        raise NotRankOneError(f"the memory of rule `{name}` is not a linear filter of gradients")
    return _assembled(filtered, moving, keep, (poly.to_expr(beta), poly.to_expr(read)))


def _leftover(name: str, outputs: list[Expr]) -> None:
    """The rule asks for `x` or `dy`, and there is none."""
    asked = {s.name for e in outputs for s in symbols(e) if s.role == "rule"}
    if asked:
        raise NotRankOneError(f"rule `{name}` asks for `{min(asked)}`, which this weight does not have")


def _sort(expr: Expr, moving: _Moving, name: str) -> _Sorted:
    out = _Sorted()
    for (atoms, left, right), c in normal(expr).terms.items():
        if any(depends(a, moving.all) for p in c for a, _ in p):
            raise NotRankOneError("the size of a step depends on the memory")
        if atoms:
            if len(atoms) != 1 or atoms[0][1] != 1 or atoms[0][0] not in moving.all or left or right:
                raise NotRankOneError(f"rule `{name}` changes the memory element by element")
            out.scales[atoms[0][0]] = poly.plus(out.scales.get(atoms[0][0], {}), c)
        else:
            _sort_outer(out, (atoms, left, right), c, moving)
    return out


def _sort_outer(out: _Sorted, basis: Basis, c: Poly, moving: _Moving) -> None:
    _, left, right = basis
    above, beside = _hits(left, moving), _hits(right, moving)
    if not above and not beside:
        out.free.append((left, right, c))
        return
    hit, row, column = (above[0], left, right) if above else (beside[0], right, left)
    if len(above) + len(beside) > 1 or hit[1] != 1:
        raise NotRankOneError("the gradient is not affine in the memory")
    atom = hit[0]
    order = (0, 1) if above else (1, 0)
    fits = atom.op == "matmul" and atom.args[order[0]] in moving.all and atom.kind == "vector"
    if not fits or depends(atom.args[order[1]], moving.all):
        raise NotRankOneError("the gradient is not affine in the memory's answer")
    if len(row) > 1:
        which = "value" if above else "key"
        raise NotRankOneError(
            f"it erases at a rate per {which} channel, so the channels share no triangular solve"
        )
    place = (atom.args[order[1]], column)
    table = (out.key_side if above else out.value_side).setdefault(place, {})
    table[atom.args[order[0]]] = poly.plus(table.get(atom.args[order[0]], {}), c)


def _hits(product: Powers, moving: _Moving) -> list[tuple[Expr, Fraction]]:
    return [(a, e) for a, e in product if depends(a, moving.all)]


def _assembled(found: _Sorted, moving: _Moving, keep: Expr, momentum: tuple[Expr, Expr] | None) -> TermForm:
    if found.key_side and found.value_side:
        raise NotRankOneError("it erases along the key and along the value at once")
    side: Side | None = "key" if found.key_side else "value" if found.value_side else None
    if side is None:
        pieces, turned = _pieces(found, "key", moving), _pieces(found, "value", moving)
        return TermForm(None, keep, pieces, momentum, turned)
    return TermForm(side, keep, _pieces(found, side, moving), momentum)


def _pieces(found: _Sorted, side: Side, moving: _Moving) -> tuple[Piece, ...]:
    """Erases with what is added along the same direction, then the directions that are only written."""
    adds: dict[Powers, list[tuple[Powers, Poly]]] = {}
    for left, right, c in found.free:
        along, add = (right, left) if side == "key" else (left, right)
        adds.setdefault(along, []).append((add, c))
    pieces = []
    for (seen, along), table in (found.key_side if side == "key" else found.value_side).items():
        total: Poly = {}
        for c in table.values():
            total = poly.plus(total, c)
        from_state = table.get(moving.weight, {}) if moving.weight is not moving.offset else {}
        erase = poly.to_expr(poly.multiply(total, poly.constant(-1.0)))
        anchored = poly.to_expr(poly.multiply(from_state, poly.constant(-1.0))) if from_state else None
        pieces.append(_piece(along, seen, erase, _added(adds.pop(along, [])), anchored))
    pieces += [_piece(along, None, None, _added(terms), None) for along, terms in adds.items()]
    return tuple(pieces)


def _added(terms: list[tuple[Powers, Poly]]) -> Expr:
    result = number(0.0)
    for product, c in terms:
        body = poly.product_expr(product)
        coefficient = poly.to_expr(c)
        result = build("add", result, coefficient if body is None else build("mul", coefficient, body))
    return result


def _piece(along: Powers, seen: Expr | None, erase: Expr | None, add: Expr, anchored: Expr | None) -> Piece:
    direction = poly.product_expr(along)
    if direction is None:
        raise NotRankOneError("it writes to all channels alike")
    parts = [e for e in (direction, seen, erase, add) if e is not None]
    lagged = any(s.role == PAST and s.name != WEIGHTING for e in parts for s in symbols(e))
    return Piece(direction, seen, erase, add, anchored, lagged)
