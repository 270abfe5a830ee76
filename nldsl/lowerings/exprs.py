"""Expressions of the calculus as emitted code on rows (see `columns`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from nldsl.calculus.expression import SYMBOL, Expr, number, symbols, walk
from nldsl.calculus.simplify import substitute
from nldsl.catalog.primitive import ContractError
from nldsl.emit.nodes import Expression, Item, Literal, Starred, Statement, assign, name, to_expression
from nldsl.library import PRIMITIVES
from nldsl.lowerings.columns import column
from nldsl.lowerings.scope import Imports, Names, Scope

ONE_MORE = to_expression((..., None))
"""The index of `x[..., None]`."""


def takes_number(expr: Expr, name: str) -> bool:
    """Whether a vector called `name` may be one number in `expr`: a sum over its channels may not."""
    vectors = [s for s in symbols(expr) if s.name == name and s.kind == "vector"]
    try:
        substitute(expr, dict.fromkeys(vectors, number(1.0)))
    except ContractError:
        return False
    return True


class ExprRows:
    """Writes expressions; what is used twice is computed once and gets a name."""

    def __init__(self, imports: Imports, names: Names, sink: list[Statement]) -> None:
        self.imports, self.names, self.sink = imports, names, sink
        self.symbols: dict[tuple[str, str], Expression] = {}
        self.done: dict[Expr, Expression] = {}
        self.uses: Counter[Expr] = Counter()

    @classmethod
    def inside(cls, scope: Scope) -> ExprRows:
        """Writes into the body of a method."""
        return cls(scope.imports, scope.names, scope.body)

    def bind(self, symbol: str, expression: Expression, role: str = "") -> None:
        """What a symbol is called in emitted code; `role` tells a rule's argument from a key of that name."""
        self.symbols[(role, symbol)] = expression

    def known(self, expr: Expr) -> Expr:
        """`expr` with the symbols that are literals as numbers, simplified again."""
        found = {}
        for symbol in symbols(expr):
            bound = self._bound(symbol)
            if isinstance(bound, Literal) and isinstance(bound.value, int | float):
                found[symbol] = number(float(bound.value))
        return substitute(expr, found) if found else expr

    def _bound(self, symbol: Expr) -> Expression:
        found = self.symbols.get((symbol.role, symbol.name))
        return found if found is not None else self.symbols[("", symbol.name)]

    def count(self, roots: Iterable[Expr]) -> None:
        """Look ahead: which nodes occur more than once below all of `roots`."""
        roots = list(roots)
        for expr in walk(roots):
            self.uses.update(set(expr.args))
        self.uses.update(roots)

    def write(self, expr: Expr) -> Expression:
        """The expression of one node; arguments first."""
        for node in walk([expr]):
            if node not in self.done:
                self.done[node] = self._one(node)
        return self.done[expr]

    def scalar(self, expr: Expr, like: Expression) -> Expression:
        """A scalar as `[...]`, one number per row of `like [..., n]`; literals are spread over the rows."""
        expr = self.known(expr)
        self.count([expr])
        written = self.write(expr)
        if expr.value is not None:
            return like.method("new_full", like.attr("shape")[slice(None, -1)], written)
        return _number_of(written)

    def vector(self, expr: Expr, like: Expression, size: int) -> Expression:
        """A vector as `[..., size]`; a scalar is repeated."""
        expr = self.known(expr)
        self.count([expr])
        written = self.write(expr)
        if expr.kind == "vector":
            return written
        return _spread(written, like, size, expr.value is not None)

    def _one(self, node: Expr) -> Expression:
        if node.op == SYMBOL:
            return self._bound(node)
        if node.value is not None:
            return to_expression(node.value)
        expression = self.applied(node)
        if self.uses[node] <= 1:
            return expression
        fresh = self.names.fresh(node.op)
        self.sink.append(assign(fresh, expression))
        return name(fresh)

    def applied(self, node: Expr) -> Expression:
        """A primitive on what its arguments are called."""
        if node.op == "identity":
            like = next(iter(self.symbols.values()))
            return self.imports.use(PRIMITIVES["identity"].torch)(**dict(node.options), like=like)
        return column(
            self.imports,
            node.op,
            node.options,
            [self.done[a] for a in node.args],
            [a.operand for a in node.args],
        )


def _number_of(row: Expression) -> Expression:
    """Rows `[..., 1]` without their last axis; one that was only put there is not put there."""
    if isinstance(row, Item) and row.index == ONE_MORE:
        return row.obj
    return row.method("squeeze", -1)


def _spread(written: Expression, like: Expression, size: int, literal: bool) -> Expression:
    rows = Starred(like.attr("shape")[slice(None, -1)])
    if literal:
        return like.method("new_full", (rows, size), written)
    return written.method("expand", rows, size)
