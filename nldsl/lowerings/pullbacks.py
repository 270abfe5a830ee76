"""Functions of rows that also give what their way back needs, and those ways back."""

from __future__ import annotations

from nldsl.calculus.expression import Expr
from nldsl.calculus.pullback import Pullback
from nldsl.emit.nodes import Expression, FunctionDef, Parameter, Statement, TupleOf, call, name, returns
from nldsl.emit.nodes import to_expression as literal
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.functions import PLACEHOLDER, Functions
from nldsl.lowerings.prune import prune
from nldsl.lowerings.scope import Names


def pulled(functions: Functions, way: Pullback, wanted: str, weights: tuple[str, ...]) -> Expression:
    """`Pulled(forward, back, outputs, pairs)`, both functions emitted once."""
    shown = [str(i) for i in way.inputs]
    forward = functions.emit(
        f"{wanted}_kept", ("kept", way), lambda: _forward(functions, way, shown, weights)
    )
    back = functions.emit(
        f"{wanted}_pullback", ("pullback", way), lambda: _back(functions, way, shown, weights)
    )
    made = functions.imports.use("nldsl.runtime.held_parts:Pulled")
    return call(made, forward, back, len(way.results), tuple(len(terms) for terms in way.weights))


class _Writer:
    """The body of one function in the making."""

    def __init__(self, functions: Functions) -> None:
        self.names = Names(functions.locals)
        self.body: list[Statement] = []
        self.rows = ExprRows(functions.imports, self.names, self.body)
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
        written = [literal(None) if r is None else self.rows.write(r) for r in results]
        body = prune((*self.body, returns(TupleOf(tuple(written)))))
        annotated = tuple(Parameter(p, name("Tensor")) for p in self.parameters)
        element = name("Tensor") if len(made) == len(results) else name("Any")
        return FunctionDef(PLACEHOLDER, annotated, body, doc, name("tuple")[element, ...])


def _forward(functions: Functions, way: Pullback, inputs: list[str], weights: tuple[str, ...]) -> FunctionDef:
    writer = _Writer(functions)
    for s in (*inputs, *weights):
        writer.symbol(s)
    doc = f"{len(way.results)} results, row by row, and {len(way.kept)} values kept for the way back."
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
