"""Functions of rows that also give what their way back needs, and those ways back."""

from __future__ import annotations

from nldsl.calculus.expression import Expr, symbols, walk
from nldsl.calculus.pullback import Pullback
from nldsl.emit.nodes import (
    Expression,
    FunctionDef,
    Like,
    Operation,
    Parameter,
    Statement,
    TupleOf,
    call,
    name,
    returns,
)
from nldsl.emit.nodes import to_expression as literal
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.functions import PLACEHOLDER, Functions
from nldsl.lowerings.prune import prune
from nldsl.lowerings.scope import Names

INLINE = ("matmul", "transpose", "neg")
"""Operations that get no name of their own where they are used once."""


def pulled(functions: Functions, way: Pullback, wanted: str, weights: tuple[str, ...]) -> Expression:
    """`Pulled(forward, back, outputs, pairs)`, both functions emitted once."""
    shown = [str(i) for i in way.inputs]
    forward = functions.emit(
        f"{wanted}_kept", ("kept", way), lambda: _forward(functions, way, wanted, [*shown, *weights])
    )
    back = functions.emit(
        f"{wanted}_pullback", ("pullback", way), lambda: _back(functions, way, shown, weights)
    )
    made = functions.imports.use("nldsl.runtime.held_parts:Pulled")
    return call(made, forward, back, len(way.results), tuple(len(terms) for terms in way.weights))


class _Rows(ExprRows):
    """Rows `[X, C, n]`: a product that is added to something is one call."""

    def applied(self, node: Expr) -> Expression:
        """See `ExprRows`."""
        if node.op in ("add", "sub"):
            for place in (1, 0):
                product, other = node.args[place], node.args[1 - place]
                written = self.done[product]
                if _is_product(product, written) and _full(other, node):
                    assert isinstance(written, Operation)
                    minus: dict[str, Like] = {}
                    if node.op == "sub":
                        minus = {"alpha" if place else "beta": -1}
                    return call("torch.baddbmm", self.done[other], written.left, written.right, **minus)
        return super().applied(node)


def _is_product(expr: Expr, written: Expression) -> bool:
    """Whether an expression is a product of rows with a weight, and has no name yet."""
    rows = expr.op == "matmul" and len(expr.shape) == 1
    return rows and isinstance(written, Operation) and written.op == "@"


def _full(expr: Expr, like: Expr) -> bool:
    """Whether an expression is rows of full width, one for every token."""
    varies = any(s.role == "seed" or s.name in ("key", "target") for s in symbols(expr))
    return expr.shape == like.shape and varies


class _Writer:
    """The body of one function in the making."""

    def __init__(self, functions: Functions) -> None:
        self.names = Names(functions.locals)
        self.body: list[Statement] = []
        self.rows = _Rows(functions.imports, self.names, self.body)
        self.parameters: list[str] = []

    def symbol(self, symbol: str, role: str = "") -> None:
        """A parameter for a symbol."""
        self.parameters.append(self.names.fresh(symbol))
        self.rows.bind(symbol, name(self.parameters[-1]), role)

    def known(self, expr: Expr, wanted: str) -> None:
        """A parameter for what has been computed before."""
        self.parameters.append(self.names.fresh(wanted))
        self.rows.done.setdefault(expr, name(self.parameters[-1]))

    def define(self, results: list[Expr | None], doc: str) -> FunctionDef:
        """The function that returns the results."""
        made = [r for r in results if r is not None]
        self.rows.count(made)
        for expr in walk(made):
            # A line for every step: what is written inside of another stays short.
            self.rows.uses[expr] += expr.op not in INLINE
        written = [literal(None) if r is None else self.rows.write(r) for r in results]
        body = prune((*self.body, returns(TupleOf(tuple(written)))))
        annotated = tuple(Parameter(p, name("Tensor")) for p in self.parameters)
        element = name("Tensor") if len(made) == len(results) else name("Any")
        return FunctionDef(PLACEHOLDER, annotated, body, doc, name("tuple")[element, ...])


def _forward(functions: Functions, way: Pullback, wanted: str, arguments: list[str]) -> FunctionDef:
    writer = _Writer(functions)
    for s in arguments:
        writer.symbol(s)
    doc = f"`{wanted}`, row by row, and what its way back needs."
    return writer.define([*way.results, *way.kept], doc)


def _back(functions: Functions, way: Pullback, inputs: list[str], weights: tuple[str, ...]) -> FunctionDef:
    writer = _Writer(functions)
    for seed in way.seeds:
        writer.symbol(seed.name, "seed")
    for s in (*inputs, *weights):
        writer.symbol(s)
    for expr in way.kept:
        writer.known(expr, expr.op)
    pairs = [e for terms in way.weights for t in terms for e in (t.dy, t.x)]
    shown = ", ".join(inputs)
    doc = (
        f"From gradients `d_i` at its results to those at {shown}, then `dy, x` of every outer product of "
        "the gradient of every weight."
    )
    return writer.define([*way.rows, *pairs], doc)
