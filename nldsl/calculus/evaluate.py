"""Evaluate expressions on numpy arrays, with the library's own reference values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.calculus.expression import SYMBOL, Expr, walk
from nldsl.catalog.broadcast import broadcast
from nldsl.catalog.numeric import np
from nldsl.library import PRIMITIVES


def evaluate(expr: Expr, values: Mapping[Expr, Any]) -> Any:
    """The value of `expr` where each symbol has the array given for it.

    Errors: `KeyError` naming the first symbol without a value.

    Example:
        >>> from nldsl.calculus.expression import node, symbol
        >>> x = symbol("x", (2,), "vector")
        >>> float(evaluate(node("sum", (x,), {}), {x: np.array([1.0, 2.0])}))
        3.0
    """
    known: dict[Expr, Any] = {}
    for e in walk([expr]):
        known[e] = (
            np.asarray(values[e], dtype=float) if e.op == SYMBOL else _apply(e, [known[a] for a in e.args])
        )
    return known[expr]


def _apply(expr: Expr, args: list[Any]) -> Any:
    """One node, its operands aligned."""
    primitive = PRIMITIVES[expr.op]
    if primitive.reference is None:
        raise KeyError(f"`{expr.op}` has no reference value")
    if primitive.elementwise:
        views = broadcast([a.operand for a in expr.args], expr.op).views
        args = [np.reshape(a, view) for a, view in zip(args, views, strict=True)]
    passed = {o.name for o in primitive.options if o.runtime}
    options = {name: value for name, value in expr.options if name in passed}
    return np.asarray(primitive.reference(*args, **options), dtype=float)
