"""Functions of rows that also give what their way back needs, and those ways back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

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
    Var,
    call,
    name,
    returns,
)
from nldsl.emit.nodes import to_expression as literal
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.functions import PLACEHOLDER, Functions
from nldsl.lowerings.prune import prune
from nldsl.lowerings.scope import Imports, Names

INLINE = ("matmul", "transpose", "neg")
"""Operations that get no name of their own where they are used once."""
FRESH = frozenset("add sub mul div pow exp sqrt sigmoid tanh silu silu_pullback gelu gelu_pullback".split())
"""Operations whose results are tensors of their own, of full width."""
APART = FRESH.union("matmul neg sum mean dot abs sign where lt le gt ge eq ne".split())
"""Operations whose results share nothing with their operands; those of others may be views of them."""


def pulled(
    functions: Functions,
    way: Pullback,
    wanted: str,
    weights: tuple[Expr, ...],
    live: bool = False,
    owned: bool = False,
) -> Expression:
    """`Pulled(forward, back, outputs, pairs)`, both functions emitted once.

    `live`: a matrix weight is an object of the runtime, `W(z)` for `W @ z` and `W.back(d)` for the way back
    through it, and a bias has a row for every token.  `owned`: the way back may write into its seeds.
    """
    # What torch may compile by itself has names of its own (`row_functions`): tensors in, tensors out.
    there, back_again = ("following", "following_back") if live else ("kept", "pullback")
    forward = functions.emit(
        f"{wanted}_{there}", ("kept", way, live), lambda: _forward(functions, way, wanted, weights, live)
    )
    back = functions.emit(
        f"{wanted}_{back_again}",
        ("pullback", way, live, owned),
        lambda: _back(functions, way, weights, live, owned),
    )
    made = functions.imports.use("nldsl.runtime.held_parts:Pulled")
    return call(made, forward, back, len(way.results), tuple(len(terms) for terms in way.weights))


class _Rows(ExprRows):
    """Rows `[X, C, n]`: a product that is added to something is one call.

    What is nobody else's and not asked for any more takes up the result: a tensor made anew is not in the
    cache.  `spare` are tensors that were made here, or given away by the caller.
    """

    live = False

    def __init__(self, imports: Imports, names: Names, sink: list[Statement]) -> None:
        super().__init__(imports, names, sink)
        self.spare: set[Expr] = set()
        self.left: Counter[Expr] = Counter()
        """How many still ask for a value."""
        self.within: dict[Expr, Counter[Expr]] = {}
        """What the operations without a name ask for: they run with the operation they stand in."""

    def count(self, roots: Iterable[Expr]) -> None:
        """See `ExprRows`."""
        roots = list(roots)
        super().count(roots)
        self.left = Counter(self.uses)

    def applied(self, node: Expr) -> Expression:
        """See `ExprRows`."""
        asked: Counter[Expr] = Counter()
        for argument in set(node.args):
            asked += self.within.get(argument, Counter([argument]))
        if self.uses[node] <= 1:
            self.within[node] = asked
            return self._written(node)
        self.left.subtract(asked)
        if node.op not in APART:
            self.spare.difference_update(asked)
        if node.op in FRESH:
            self.spare.add(node)
        return self._written(node)

    def _written(self, node: Expr) -> Expression:
        through = self._through(node) if self.live else None
        if through is not None:
            return through
        if not self.live and node.op in ("add", "sub"):
            for place in (1, 0):
                product, other = node.args[place], node.args[1 - place]
                written = self.done[product]
                if _is_product(product, written) and _full(other, node):
                    assert isinstance(written, Operation)
                    minus: dict[str, Like] = {}
                    if node.op == "sub":
                        minus = {"alpha" if place else "beta": -1}
                    if self._free(other, node):
                        return self.done[other].method("baddbmm_", written.left, written.right, **minus)
                    return call("torch.baddbmm", self.done[other], written.left, written.right, **minus)
        into = self._in_place(node)
        return super().applied(node) if into is None else into

    def _in_place(self, node: Expr) -> Expression | None:
        """Arithmetic into an operand that nobody asks for any more."""
        if node.op not in ("add", "sub", "mul", "div"):
            return None
        first, second = node.args
        if self._free(first, node):
            return self.done[first].method(f"{node.op}_", self.done[second])
        if self._free(second, node) and node.op in ("add", "mul"):
            return self.done[second].method(f"{node.op}_", self.done[first])
        return None

    def _free(self, expr: Expr, like: Expr) -> bool:
        """Whether a result of the size of an operand may take its place."""
        named = isinstance(self.done[expr], Var) and expr in self.spare
        return named and self.left[expr] == 0 and self.uses[like] > 1 and _full(expr, like)

    def _through(self, node: Expr) -> Expression | None:
        """A product with a weight that follows its writes."""
        if node.op != "matmul":
            return None
        left, right = node.args
        if left.role == "weight":
            return call(self._bound(left), self.done[right])
        return call(self._bound(right).attr("back"), self.done[left]) if right.role == "weight" else None


def _is_product(expr: Expr, written: Expression) -> bool:
    """Whether an expression is a product of rows with a weight, and has no name yet."""
    rows = expr.op == "matmul" and len(expr.shape) == 1
    return rows and isinstance(written, Operation) and written.op == "@"


def _full(expr: Expr, like: Expr) -> bool:
    """Whether an expression is rows of full width, one for every token, or a bias."""
    varies = expr.role == "weight" or any(s.role in ("seed", "key", "target") for s in symbols(expr))
    return expr.shape == like.shape and varies


class _Writer:
    """The body of one function in the making."""

    def __init__(self, functions: Functions, live: bool) -> None:
        self.names = Names(functions.locals)
        self.body: list[Statement] = []
        self.rows = _Rows(functions.imports, self.names, self.body)
        self.rows.live = live
        self.parameters: list[Parameter] = []

    def symbol(self, symbol: Expr) -> None:
        """A parameter for a symbol, whose role tells a key from a weight of that name."""
        matrix = self.rows.live and symbol.role == "weight" and symbol.kind == "matrix"
        self._parameter(symbol.name, "Any" if matrix else "Tensor")
        self.rows.bind(symbol.name, name(self.parameters[-1].name), symbol.role)

    def given(self, seed: Expr) -> None:
        """A parameter whose tensor the caller does not need any more."""
        self.symbol(seed)
        self.rows.spare.add(seed)

    def _parameter(self, wanted: str, annotation: str = "Tensor") -> None:
        self.parameters.append(Parameter(self.names.fresh(wanted), name(annotation)))

    def known(self, expr: Expr, wanted: str) -> None:
        """A parameter for what has been computed before."""
        self._parameter(wanted)
        self.rows.done.setdefault(expr, name(self.parameters[-1].name))

    def define(self, results: list[Expr | None], doc: str) -> FunctionDef:
        """The function that returns the results."""
        made = [r for r in results if r is not None]
        self.rows.count(made)
        for expr in walk(made):
            # A line for every step: what is written inside of another stays short.
            self.rows.uses[expr] += expr.op not in INLINE
        written = [literal(None) if r is None else self.rows.write(r) for r in results]
        body = prune((*self.body, returns(TupleOf(tuple(written)))))
        element = name("Tensor") if len(made) == len(results) else name("Any")
        return FunctionDef(PLACEHOLDER, tuple(self.parameters), body, doc, name("tuple")[element, ...])


def _forward(
    functions: Functions, way: Pullback, wanted: str, weights: tuple[Expr, ...], live: bool
) -> FunctionDef:
    writer = _Writer(functions, live)
    for s in (*way.inputs, *weights):
        writer.symbol(s)
    doc = f"`{wanted}`, row by row, and what its way back needs{_LIVE if live else '.'}"
    return writer.define([*way.results, *way.kept], doc)


def _back(
    functions: Functions, way: Pullback, weights: tuple[Expr, ...], live: bool, owned: bool
) -> FunctionDef:
    writer = _Writer(functions, live)
    for seed in way.seeds:
        if owned:
            writer.given(seed)
        else:
            writer.symbol(seed)
    for s in (*way.inputs, *weights):
        writer.symbol(s)
    for expr in way.kept:
        writer.known(expr, expr.op)
    pairs = [e for terms in way.weights for t in terms for e in (t.dy, t.x)]
    shown = ", ".join(str(i) for i in way.inputs)
    doc = (
        f"From gradients `d_i` at its results{_OWNED if owned else ''} to those at {shown}, "
        f"then `dy, x` of every outer product of the gradient of every weight{_LIVE if live else '.'}"
    )
    return writer.define([*way.rows, *pairs], doc)


_OWNED = ", which are written over,"
_LIVE = ", at the weights of every token: `W(z)` for `W @ z`, `W.back(d)` for the way back."
