"""A linear rule with any number of slots: weight and slots mix by numbers and take up the gradient at rates.

    Z' = A Z + b g + pieces of the rule's own,   Z = (W, slots),

with numbers `A`, `b` that may depend on the token, and the gradient `g` affine in `W` by rank-one pieces.
Momentum, Nesterov's, two momenta of different lengths, averages of the weight: all are such rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

from nldsl.calculus import polynomial as poly
from nldsl.calculus.expression import Expr, depends, number, symbols
from nldsl.calculus.normal import Basis, normal
from nldsl.calculus.polynomial import Poly, Powers
from nldsl.calculus.rules import RuleSymbols
from nldsl.calculus.simplify import build, substitute
from nldsl.calculus.sorting import PAST, Moving, NotRankOneError, Piece, Side, pieces_of, sort


@dataclass(frozen=True)
class Mixed:
    """`Z_i' = sum_j rows[i][j] Z_j + sum_p into[p][i] piece_p`, where piece `p` looks at `Z_(of[p])`."""

    rows: tuple[tuple[Expr, ...], ...]
    into: tuple[tuple[Expr, ...], ...]
    of: tuple[int, ...]


def of_filter(keep: Expr, momentum: tuple[Expr, Expr] | None, pieces: int) -> Mixed:
    """A weight alone, or with one filter in front of it: `m' = beta m + pieces`, `W' = keep W + read m'`."""
    one, zero = number(1.0), number(0.0)
    if momentum is None:
        return Mixed(((keep,),), ((one,),) * pieces, (0,) * pieces)
    beta, read = momentum
    rows = ((keep, build("mul", read, beta)), (zero, beta))
    return Mixed(rows, ((read, one),) * pieces, (0,) * pieces)


@dataclass(frozen=True)
class Telling:
    """The symbols of a rule (`states`: weight and slots before the step) and what they stand for.

    `weight` is what the gradient looks at, `offset` what the rule is given.
    """

    symbols: RuleSymbols
    states: tuple[Expr, ...]
    known: dict[Expr, Expr]
    weight: Expr
    offset: Expr


Looked = tuple[int, Expr, Powers]
"""A state, what it is asked, and the direction that is written."""


@dataclass
class _Step:
    """The summands of the new states; every list has one coefficient per state."""

    count: int
    rows: list[list[Poly]] = field(default_factory=list)
    gradient: list[Poly] = field(default_factory=list)
    key_side: dict[Looked, list[Poly]] = field(default_factory=dict)
    value_side: dict[Looked, list[Poly]] = field(default_factory=dict)
    free: dict[tuple[Powers, Powers], list[Poly]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = [[{} for _ in range(self.count)] for _ in range(self.count)]
        self.gradient = [{} for _ in range(self.count)]

    def none(self) -> list[Poly]:
        """No coefficient yet, for every state."""
        return [{} for _ in range(self.count)]


Told = tuple[tuple[Piece, ...], Mixed]
"""Pieces, and how the states mix and take them up."""


def mixed_step(name: str, outputs: tuple[Expr, ...], telling: Telling) -> tuple[Side | None, Told, Told]:
    """The side of the erases, the step, and the step as the value side has it.

    Errors: `NotRankOneError`.
    """
    step = _Step(len(telling.states))
    for i, output in enumerate(outputs):
        for basis, c in normal(output).terms.items():
            _book(name, step, i, (basis, c), telling)
    moving = Moving(telling.weight, telling.offset, ())
    told = sort(telling.known[telling.symbols.gradient], moving, name)
    for scaled, c in told.scales.items():
        if scaled is not telling.offset:
            raise NotRankOneError("it scales the memory and not its distance from the initial state")
        if any(s.role == PAST for s in symbols(poly.to_expr(c))):
            raise NotRankOneError("the gradient of a weighted lesson scales the memory")
        for row, b in zip(step.rows, step.gradient, strict=True):
            row[0] = poly.plus(row[0], poly.multiply(b, c))
    tables: dict[Side, bool] = {
        "key": bool(told.key_side or step.key_side),
        "value": bool(told.value_side or step.value_side),
    }
    sides = [side for side, erases in tables.items() if erases]
    if len(sides) > 1:
        raise NotRankOneError("it erases along the key and along the value at once")
    written = _Written(name, step, telling)
    side = sides[0] if sides else None
    straight = written.told(side or "key", pieces_of(told, side or "key", moving))
    turned = straight if sides else written.told("value", pieces_of(told, "value", moving))
    return side, straight, turned


def _book(name: str, step: _Step, i: int, term: tuple[Basis, Poly], telling: Telling) -> None:
    """Sort one summand of one new state."""
    (atoms, left, right), c = term
    s, moving = telling.symbols, (*telling.states, telling.symbols.gradient, telling.symbols.dy)
    if any(depends(a, moving) for p in c for a, _ in p):
        raise NotRankOneError(f"the size of a step of rule `{name}` depends on the memory or its gradient")
    if atoms:
        plain = len(atoms) == 1 and atoms[0][1] == 1 and not left and not right
        if not plain or atoms[0][0] not in moving:
            raise NotRankOneError(f"rule `{name}` changes the memory element by element")
        if atoms[0][0] is s.gradient:
            step.gradient[i] = poly.plus(step.gradient[i], c)
        else:
            j = telling.states.index(atoms[0][0])
            step.rows[i][j] = poly.plus(step.rows[i][j], c)
    elif (left, right) == (((s.dy, Fraction(1)),), ((s.x, Fraction(1)),)):
        step.gradient[i] = poly.plus(step.gradient[i], c)
    else:
        _book_outer(name, step, i, (left, right, c), telling)


def _book_outer(name: str, step: _Step, i: int, term: tuple[Powers, Powers, Poly], telling: Telling) -> None:
    left, right, c = term
    moving = (*telling.states, telling.symbols.gradient, telling.symbols.dy)
    hits = [(side, a) for side, part in ((0, left), (1, right)) for a, _ in part if depends(a, moving)]
    if not hits:
        booked = step.free.setdefault((left, right), step.none())
        booked[i] = poly.plus(booked[i], c)
        return
    side, atom = hits[0]
    row, column = (left, right) if side == 0 else (right, left)
    order = (0, 1) if side == 0 else (1, 0)
    plain = len(hits) == 1 and row == ((atom, Fraction(1)),) and atom.op == "matmul" and atom.kind == "vector"
    if not plain or atom.args[order[0]] not in telling.states or depends(atom.args[order[1]], moving):
        raise NotRankOneError(f"rule `{name}` is not linear in the weight, its gradient and its memories")
    place = (telling.states.index(atom.args[order[0]]), atom.args[order[1]], column)
    booked = (step.key_side if side == 0 else step.value_side).setdefault(place, step.none())
    booked[i] = poly.plus(booked[i], c)


@dataclass(frozen=True)
class _Written:
    """The sorted step as expressions of the lesson."""

    name: str
    step: _Step
    telling: Telling

    def told(self, side: Side, told: tuple[Piece, ...]) -> Told:
        """Pieces of the gradient, then those of the rule's own; one with the other where they may be."""
        rate = self._numbers(self.step.gradient)
        found = [(p, rate, 0) for p in told] if any(b.value != 0.0 for b in rate) else []
        table = self.step.key_side if side == "key" else self.step.value_side
        for (state, seen, along), coefficients in table.items():
            self._erase(found, (state, self._now(seen), self._direction(along)), self._numbers(coefficients))
        for (left, right), coefficients in self.step.free.items():
            across, add = (right, left) if side == "key" else (left, right)
            body = poly.product_expr(add)
            given = number(1.0) if body is None else self._now(body)
            piece = Piece(self._direction(across), None, None, given, None, False)
            found.append((piece, self._numbers(coefficients), 0))
        if not found:
            raise NotRankOneError(f"rule `{self.name}` takes nothing of the gradient")
        rows = tuple(self._numbers(row) for row in self.step.rows)
        return tuple(p for p, _, _ in found), Mixed(
            rows, tuple(b for _, b, _ in found), tuple(j for *_, j in found)
        )

    def _erase(
        self,
        found: list[tuple[Piece, tuple[Expr, ...], int]],
        place: tuple[int, Expr, Expr],
        into: tuple[Expr, ...],
    ) -> None:
        """An erase of the rule; in the piece of the gradient where that stands at the same key and rates."""
        state, seen, along = place
        for n, (piece, rates, of) in enumerate(found):
            if (piece.along, piece.seen, rates, of) == (along, seen, into, state) and piece.erase is not None:
                more = build("sub", piece.erase, 1.0)
                found[n] = (replace(piece, erase=more), rates, of)
                return
        found.append((Piece(along, seen, number(-1.0), number(0.0), None, False), into, state))

    def _direction(self, along: Powers) -> Expr:
        direction = poly.product_expr(along)
        if direction is None:
            raise NotRankOneError("it writes to all channels alike")
        return self._now(direction)

    def _now(self, expr: Expr) -> Expr:
        return self._checked([substitute(expr, self.telling.known)])[0]

    def _numbers(self, coefficients: Iterable[Poly]) -> tuple[Expr, ...]:
        written = [substitute(poly.to_expr(c), self.telling.known) for c in coefficients]
        return tuple(self._checked(written))

    def _checked(self, found: list[Expr]) -> list[Expr]:
        asked = {s.name for e in found for s in symbols(e) if s.role == "rule"} - {"step"}
        if asked:
            raise NotRankOneError(
                f"rule `{self.name}` asks for `{min(asked)}`, which this weight does not have"
            )
        return found
