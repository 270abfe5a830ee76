"""The summands of a new state, sorted: multiples of states, erases of rank one, outer products."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from nldsl.calculus import polynomial as poly
from nldsl.calculus.expression import Expr, depends, number, symbols
from nldsl.calculus.normal import Basis, normal
from nldsl.calculus.polynomial import Poly, Powers
from nldsl.calculus.simplify import build

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
class Moving:
    """What changes: the memory, its distance from the start (the same symbol if that is zero), slots."""

    weight: Expr
    offset: Expr
    slots: tuple[Expr, ...]

    @property
    def all(self) -> tuple[Expr, ...]:
        return (self.weight, self.offset, *self.slots)


@dataclass
class Sorted:
    """The summands of one new state."""

    scales: dict[Expr, Poly] = field(default_factory=dict)
    key_side: dict[tuple[Expr, Powers], dict[Expr, Poly]] = field(default_factory=dict)
    value_side: dict[tuple[Expr, Powers], dict[Expr, Poly]] = field(default_factory=dict)
    free: list[tuple[Powers, Powers, Poly]] = field(default_factory=list)


def sort(expr: Expr, moving: Moving, name: str) -> Sorted:
    out = Sorted()
    for (atoms, left, right), c in normal(expr).terms.items():
        if any(depends(a, moving.all) for p in c for a, _ in p):
            raise NotRankOneError("the size of a step depends on the memory")
        if atoms:
            if len(atoms) != 1 or atoms[0][1] != 1 or atoms[0][0] not in moving.all or left or right:
                raise NotRankOneError(f"rule `{name}` changes the memory element by element")
            out.scales[atoms[0][0]] = poly.plus(out.scales.get(atoms[0][0], {}), c)
        else:
            sort_outer(out, (atoms, left, right), c, moving)
    return out


def sort_outer(out: Sorted, basis: Basis, c: Poly, moving: Moving) -> None:
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


def _hits(product: Powers, moving: Moving) -> list[tuple[Expr, Fraction]]:
    return [(a, e) for a, e in product if depends(a, moving.all)]


def pieces_of(found: Sorted, side: Side, moving: Moving) -> tuple[Piece, ...]:
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
