"""Is an expression affine in one of its symbols, and with which coefficients?"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from nldsl.calculus import polynomial as poly
from nldsl.calculus.expression import Expr, depends, number
from nldsl.calculus.normal import ONE, Basis, Form, normal, to_expr
from nldsl.calculus.polynomial import Poly, Powers, TooLargeError
from nldsl.calculus.simplify import build


@dataclass(frozen=True)
class LinearPart:
    """One linear summand; `coefficient` is a scalar free of the symbol.

    scalar: `coefficient * symbol` | diagonal: `coefficient * factor * symbol` |
    product: `coefficient * (symbol @ factor)` | erase: `coefficient * outer(symbol @ factor, factor)`.
    """

    kind: Literal["scalar", "diagonal", "product", "erase"]
    coefficient: Expr
    factor: Expr | None = None


@dataclass(frozen=True)
class Affine:
    """`constant + sum(parts)`, for every value of every symbol."""

    constant: Expr
    parts: tuple[LinearPart, ...]

    def scalar_coefficient(self) -> Expr | None:
        """`c` if the expression is `constant + c * symbol` (zero if constant), else `None`."""
        if not self.parts:
            return number(0.0)
        only = self.parts[0]
        return only.coefficient if len(self.parts) == 1 and only.kind == "scalar" else None


def affine_in(expr: Expr, symbol: Expr) -> Affine | None:
    """`expr` as a constant plus linear parts in `symbol`; `None` if it is not, or not recognisably.

    Example:
        >>> from nldsl.calculus.expression import symbol
        >>> p, t = symbol("p", (3,), "vector"), symbol("t", (3,), "vector")
        >>> affine_in(build("mul", 2.0, build("sub", p, t)), p).scalar_coefficient().value
        2.0
    """
    try:
        form = normal(expr)
    except TooLargeError:
        return None
    constant: dict[Basis, Poly] = {}
    linear: dict[tuple[str, Expr | None], Poly] = {}
    for basis, coefficient in form.terms.items():
        free, bound = _by_dependence(coefficient, symbol)
        touched = any(depends(a, [symbol]) for p in basis for a, _ in p)
        if not touched:
            if free:
                constant[basis] = free
            if not _scalar_symbol(bound, basis, symbol, linear):
                return None
            continue
        shape = None if bound else _linear_shape(basis, symbol)
        if shape is None:
            return None
        linear[shape] = poly.plus(linear.get(shape, {}), free)
    parts = tuple(
        LinearPart(kind, poly.to_expr(c), factor)  # type: ignore[arg-type]
        for (kind, factor), c in sorted(linear.items(), key=_part_order)
        if c
    )
    return Affine(to_expr(Form(constant, form.like)), parts)


PASSED_ON = frozenset(
    {"add", "sub", "neg", "sum", "mean", "expand_last", "concat", "parts", "transpose", "split", "merge"}
)
"""Linear in all their arguments together."""
MULTIPLIED = frozenset({"mul", "matmul", "dot", "outer"})


def is_affine(expr: Expr, *symbols: Expr) -> bool:
    """Whether `expr` is affine in all `symbols` together as it is written; `False` also means unknown.

    Example:
        >>> from nldsl.calculus.expression import symbol
        >>> p, t = symbol("p", (3,), "vector"), symbol("t", (3,), "vector")
        >>> mixed = build("sub", p, build("mul", build("sum", p), t))
        >>> affine_in(mixed, p), is_affine(mixed, p), is_affine(build("mul", p, mixed), p)
        (None, True, False)
    """
    bound = [a for a in expr.args if depends(a, symbols)]
    if not bound:
        return True
    if expr.op in MULTIPLIED and len(bound) > 1:
        return False
    if expr.op == "div" and depends(expr.args[1], symbols):
        return False
    known = expr.op in PASSED_ON or expr.op in MULTIPLIED or expr.op == "div"
    return known and all(is_affine(a, *symbols) for a in bound)


def _part_order(item: tuple[tuple[str, Expr | None], Poly]) -> tuple[object, ...]:
    (kind, factor), _ = item
    return (kind, factor.order if factor is not None else ())


def _by_dependence(coefficient: Poly, symbol: Expr) -> tuple[Poly, Poly]:
    """The products without and with the symbol."""
    bound = {p: c for p, c in coefficient.items() if any(depends(a, [symbol]) for a, _ in p)}
    return {p: c for p, c in coefficient.items() if p not in bound}, bound


def _scalar_symbol(
    bound: Poly, basis: Basis, symbol: Expr, linear: dict[tuple[str, Expr | None], Poly]
) -> bool:
    """Book the products linear in a scalar symbol; `False` if some are not."""
    for product, c in bound.items():
        rest = _without(product, symbol)
        if rest is None or basis != ONE:
            return False
        key = ("scalar", None)
        linear[key] = poly.plus(linear.get(key, {}), {rest: c})
    return True


def _without(product: Powers, factor: Expr) -> Powers | None:
    """The product without its first power of `factor`; `None` if anything else depends on it."""
    rest = tuple((a, e) for a, e in product if a is not factor)
    found = [e for a, e in product if a is factor]
    if found != [Fraction(1)] or any(depends(a, [factor]) for a, _ in rest):
        return None
    return rest


def _linear_shape(basis: Basis, symbol: Expr) -> tuple[str, Expr | None] | None:
    """How a basis element is linear in the symbol."""
    atoms, left, right = basis
    if len(symbol.shape) == 2 and not atoms and len(left) == 1:
        return _product_shape(left, right, symbol)
    if atoms:
        alone = _without(atoms, symbol) == () and not left and not right
        return ("scalar", None) if alone else None
    rest = _without(left, symbol)
    if rest is None or right:
        return None
    return ("diagonal", poly.product_expr(rest)) if rest else ("scalar", None)


def _product_shape(left: Powers, right: Powers, symbol: Expr) -> tuple[str, Expr | None] | None:
    """`symbol @ x`, alone or in an outer product with that very `x`."""
    hit, exponent = left[0]
    if exponent != 1 or hit.op != "matmul" or hit.args[0] is not symbol or hit.kind != "vector":
        return None
    x = hit.args[1]
    if depends(x, [symbol]):
        return None
    if not right:
        return ("product", x)
    return ("erase", x) if poly.product_expr(right) is x else None


def scalar_value(expr: Expr) -> float | None:
    """The number an expression equals whatever its symbols, if the analysis sees it."""
    try:
        form = normal(expr)
    except TooLargeError:
        return None
    if form.rank or any(p for p in form.scalar):
        return None
    return float(form.scalar.get((), Fraction(0)))


def equal(left: Expr, right: Expr) -> bool:
    """Whether two expressions are certainly equal; `False` also means unknown."""
    if left is right:
        return True
    try:
        return not normal(build("sub", left, right)).terms
    except TooLargeError:
        return False
