"""Sums of products of powers: the scalars and the elementwise products of the normal form.

A `Powers` is a product of powers of atoms (expressions that are not taken apart further); a
`Poly` a sum of such products with exact rational coefficients, so that `0.1 + 0.2 - 0.3` is zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from nldsl.calculus.expression import Expr, number
from nldsl.calculus.simplify import build, total

Powers = tuple[tuple[Expr, Fraction], ...]
Poly = dict[Powers, Fraction]

LIMIT = 400
"""Products kept before an expression counts as too large to analyse."""


class TooLargeError(Exception):
    """The normal form would be larger than `LIMIT`; the analysis answers "unknown"."""


def exact(value: float) -> Fraction:
    """A number as it is written: 0.1 is one tenth."""
    return Fraction(repr(value))


def powers(atoms: Mapping[Expr, Fraction]) -> Powers:
    """The product with its factors in order and without zeroth powers."""
    return tuple(sorted(((a, e) for a, e in atoms.items() if e), key=lambda f: f[0].order))


def times(left: Powers, right: Powers) -> Powers:
    """The product of two products."""
    gathered = dict(left)
    for atom, exponent in right:
        gathered[atom] = gathered.get(atom, Fraction(0)) + exponent
    return powers(gathered)


def raised(product: Powers, exponent: Fraction) -> Powers:
    """A product to a whole power."""
    return powers({a: e * exponent for a, e in product})


def constant(value: float | Fraction) -> Poly:
    """A number as a polynomial."""
    coefficient = value if isinstance(value, Fraction) else exact(value)
    return {(): coefficient} if coefficient else {}


def atom(expr: Expr) -> Poly:
    """An expression that is not taken apart."""
    return {((expr, Fraction(1)),): Fraction(1)}


def plus(left: Poly, right: Poly) -> Poly:
    """The sum; products that cancel disappear."""
    result = dict(left)
    for product, coefficient in right.items():
        added = result.pop(product, Fraction(0)) + coefficient
        if added:
            result[product] = added
    return checked(result)


def multiply(left: Poly, right: Poly) -> Poly:
    """The product, expanded."""
    if len(left) * len(right) > LIMIT:
        raise TooLargeError
    result: Poly = {}
    for p, a in left.items():
        for q, b in right.items():
            product = times(p, q)
            added = result.pop(product, Fraction(0)) + a * b
            if added:
                result[product] = added
    return checked(result)


def checked(poly: Poly) -> Poly:
    """The polynomial, if it is of a size worth going on with."""
    if len(poly) > LIMIT:
        raise TooLargeError
    return poly


def inverse(poly: Poly) -> Poly:
    """One over a polynomial: exact for a single product, else a power of minus one of a new atom.

    The new atom has leading coefficient one, so that `1 / (2 + 2 s)` is half of `1 / (1 + s)`.
    """
    if len(poly) == 1:
        ((product, coefficient),) = poly.items()
        return {raised(product, Fraction(-1)): 1 / coefficient}
    first = max(poly, key=_order)
    leading = poly[first]
    base = to_expr({p: c / leading for p, c in poly.items()})
    return {((base, Fraction(-1)),): 1 / leading}


def to_expr(poly: Poly) -> Expr:
    """The polynomial as an expression, in a fixed order."""
    terms = [_term(p, poly[p]) for p in sorted(poly, key=_order)]
    return total(terms) or number(0.0)


def product_expr(product: Powers) -> Expr | None:
    """A product of powers as an expression, `None` for the empty one."""
    over = _factors((a, e) for a, e in product if e > 0)
    under = _factors((a, -e) for a, e in product if e < 0)
    if under is None:
        return over
    return build("div", over if over is not None else number(1.0), under)


def _factors(parts: Iterable[tuple[Expr, Fraction]]) -> Expr | None:
    result: Expr | None = None
    for a, exponent in parts:
        factor = build("pow", a, float(exponent)) if exponent != 1 else a
        result = factor if result is None else build("mul", result, factor)
    return result


def _term(product: Powers, coefficient: Fraction) -> Expr:
    expr = product_expr(product)
    return number(float(coefficient)) if expr is None else build("mul", float(coefficient), expr)


def _order(product: Powers) -> tuple[object, ...]:
    """Low degrees first, then by the atoms."""
    return (len(product), [(a.order, e) for a, e in product])
