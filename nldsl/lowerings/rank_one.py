"""Steps of rules where the gradient of a weight is `dy x^T`: rows first, and one outer product per piece.

A rule as written passes over tensors of the size of the weight for every operation.  Here only the products
with the weight and the new weight itself have that size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.calculus.expression import Expr, symbols, walk
from nldsl.calculus.pieces import ROW, NotRankOneError, Piece, TermForm, rule_pieces
from nldsl.calculus.simplify import build
from nldsl.catalog.values import Shape
from nldsl.emit.nodes import Expression, Literal, assign, name
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.scope import Scope
from nldsl.spec.program import Term


@dataclass
class Total:
    """`factor D + what is added`, where `D` is what retention and the rules are given of a weight."""

    given: Expression
    gate: Expression | None
    offset: float = 0.0
    added: list[tuple[str, Expression]] = field(default_factory=list)

    def scale(self, keep: Expression) -> None:
        """A rule that leaves `keep D`."""
        if self.gate is None:
            self.gate = keep
        else:
            self.gate, self.offset = self.gate + keep, self.offset - 1.0

    def replace(self, stepped: Expression) -> None:
        """A rule known only by its new weight."""
        self.offset -= 1.0
        self.added.append(("+", stepped))

    def written(self, anchor: Expression | None) -> Expression:
        """The new weight around `anchor`."""
        total = self._scaled()
        rest = self.added if anchor is None else [*self.added, ("+", anchor)]
        for sign, expression in rest:
            if total is None:
                total = expression if sign == "+" else -expression
            else:
                total = total + expression if sign == "+" else total - expression
        return self.given if total is None else total

    def _scaled(self) -> Expression | None:
        if self.gate is None:
            factor = 1.0 + self.offset
            if factor == 0.0:
                return None
            return self.given if factor == 1.0 else Literal(factor) * self.given
        return (self.gate - -self.offset if self.offset else self.gate) * self.given


def pieces_of(term: Term, shape: Shape) -> TermForm | None:
    """The pieces a rule moves a weight by, along its key; `None` if it has no such form."""
    if term.window > 1 or term.weight is not None or len(term.rule.slots) > 1:
        return None
    try:
        form = rule_pieces(term, shape)
    except NotRankOneError:
        return None
    return form if form.side != "value" and all(map(_in_rows, form.pieces)) else None


def _in_rows(piece: Piece) -> bool:
    """Whether it is made of rows and numbers, with no matrix but the weight."""
    parts = [e for e in (piece.along, piece.seen, piece.erase, piece.add) if e is not None]
    plain = piece.along.kind == "vector" and (piece.add.kind == "vector" or piece.add.value == 0.0)
    return plain and all(e.kind != "matrix" for e in walk(parts))


class OuterStep:
    """Writes the pieces of one rule for one weight; `x`, `dy` are rows of one token."""

    def __init__(self, scope: Scope, x: Expression, dy: Expression, rates: dict[str, Expression]) -> None:
        self.rows = ExprRows.inside(scope)
        self.dy = dy
        self.rows.bind("x", x, ROW)
        self.rows.bind("dy", dy, ROW)
        for argument, rate in rates.items():
            self.rows.bind(argument, rate, "argument")

    def write(self, expr: Expr) -> Expression:
        """A coefficient, or a row."""
        known = self.rows.known(expr)
        self.rows.count([known])
        return self.rows.write(known)

    def outer(self, piece: Piece, given: Expression, wanted: str) -> Expression:
        """What a piece takes away: `(taken + erase (D seen)) along^T`; the rows are called `wanted`."""
        taken = self._taken(piece, given)
        if piece.seen is not None:
            taken = self._named(taken, wanted)
        return taken.attr("mT") @ self.write(piece.along)

    def _named(self, expression: Expression, wanted: str) -> Expression:
        chosen = self.rows.names.fresh(wanted)
        self.rows.sink.append(assign(chosen, expression))
        return name(chosen)

    def _taken(self, piece: Piece, given: Expression) -> Expression:
        taken = build("neg", piece.add)
        if piece.seen is None or piece.erase is None:
            return self.write(taken)
        stored = self.write(piece.seen) @ given.attr("mT")
        dy = next((s for s in _row(taken) if build("mul", s, piece.erase) is taken), None)
        if dy is not None:
            return self.write(piece.erase) * (stored + self.dy)
        erased = self.write(piece.erase) * stored
        return erased if taken.value == 0.0 else self.write(taken) + erased


def _row(expr: Expr) -> list[Expr]:
    """The symbol `dy` as it stands in an expression."""

    return [s for s in symbols(expr) if (s.role, s.name) == (ROW, "dy")]
