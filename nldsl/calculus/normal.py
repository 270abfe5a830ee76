"""A normal form for tensor expressions, so that algebraically equal ones become equal.

A scalar is a polynomial.  A vector is a sum of `coefficient * product`, where the product is an
elementwise product of powers of vector atoms.  A matrix is a sum of `coefficient * (A * outer(l, r))`
with elementwise products `A` of matrix atoms and `l`, `r` of vector atoms.  Everything linear
(sums, products with matrices, inner and outer products) is distributed over these sums; anything
else becomes an atom with its arguments in normal form.  Equal normal forms imply equal values;
unequal ones imply nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from nldsl.calculus import polynomial as poly
from nldsl.calculus.expression import SYMBOL, Expr, number, walk
from nldsl.calculus.polynomial import Poly, Powers
from nldsl.calculus.simplify import apply, build, total

Basis = tuple[Powers, Powers, Powers]
"""(matrix atoms, left factor, right factor); a vector uses the left factor, a scalar none."""

ONE: Basis = ((), (), ())


@dataclass(frozen=True)
class Form:
    """A sum of `coefficient * basis`; `like` is an expression of the same shape."""

    terms: dict[Basis, Poly]
    like: Expr

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.like.shape)

    @property
    def scalar(self) -> Poly:
        """The polynomial of a scalar."""
        return self.terms.get(ONE, {})


def normal(expr: Expr) -> Form:
    """The normal form of an expression of one head (scalar, vector or matrix).

    Errors: `TooLargeError` if it does not fit the limit.
    """
    done: dict[Expr, Form] = {}
    for e in walk([expr]):
        done[e] = _node(e, [done[a] for a in e.args])
    return done[expr]


def canonical(expr: Expr) -> Expr:
    """The expression written back from its normal form."""
    return to_expr(normal(expr))


def to_expr(form: Form) -> Expr:
    """A normal form as an expression, in a fixed order."""
    parts = []
    for basis in sorted(form.terms, key=_order):
        body = basis_expr(basis, form.like)
        coefficient = poly.to_expr(form.terms[basis])
        parts.append(coefficient if body is None else build("mul", coefficient, body))
    result = total(parts) or number(0.0)
    if form.rank == 1 and not result.shape:
        return build("expand_last", result, form.like)
    return result


def basis_expr(basis: Basis, like: Expr) -> Expr | None:
    """One basis element as an expression; `None` where it is one everywhere and may broadcast."""
    atoms, left, right = basis
    matrix, above, beside = (poly.product_expr(p) for p in (atoms, left, right))
    if len(like.shape) < 2:
        return above
    if above is None and beside is None:
        return matrix
    ones = [build("expand_last", 1.0, _axis_like(like, i)) for i in (0, 1)]
    outer = build("outer", ones[0] if above is None else above, ones[1] if beside is None else beside)
    return outer if matrix is None else build("mul", matrix, outer)


def _axis_like(like: Expr, axis: int) -> Expr:
    """A vector as long as one axis of a matrix."""
    return build("sum", like if axis == 0 else build("transpose", like))


def _order(basis: Basis) -> tuple[object, ...]:
    return tuple((len(p), [(a.order, e) for a, e in p]) for p in basis)


def _node(expr: Expr, args: list[Form]) -> Form:
    """The normal form of one node from those of its arguments."""
    if expr.value is not None and math.isfinite(expr.value):
        return Form({ONE: poly.constant(expr.value)} if expr.value else {}, expr)
    rule = _RULES.get(expr.op)
    one_head = expr.kind in ("scalar", "vector", "matrix") and not expr.owned
    made = rule(expr, args) if rule is not None and one_head else None
    return made if made is not None else _opaque(expr, args)


def _opaque(expr: Expr, args: list[Form]) -> Form:
    """An atom; its arguments are written in normal form so that equal ones are one atom."""
    if args and not expr.owned and all(a.like.kind in ("scalar", "vector", "matrix") for a in args):
        written = [to_expr(a) for a in args]
        if all(w.shape == a.like.shape for w, a in zip(written, args, strict=True)):
            expr = apply(expr.op, tuple(written), dict(expr.options))
    if args and expr.value is not None:
        return _node(expr, [])
    return _atom_form(expr)


def _atom_form(expr: Expr, exponent: Fraction = Fraction(1)) -> Form:
    """An expression as an atom of its rank, to some power."""
    product: Powers = ((expr, exponent),)
    if not expr.shape:
        return Form({ONE: {product: Fraction(1)}}, expr)
    basis: Basis = ((), product, ()) if len(expr.shape) == 1 else (product, (), ())
    return Form({basis: {(): Fraction(1)}}, expr)


def _collect(pairs: list[tuple[Basis, Poly]], like: Expr) -> Form:
    """The sum of terms that may share a basis."""
    terms: dict[Basis, Poly] = {}
    for basis, coefficient in pairs:
        added = poly.plus(terms.pop(basis, {}), coefficient)
        if added:
            terms[basis] = added
    if len(terms) > poly.LIMIT:
        raise poly.TooLargeError
    return Form(terms, like)


def _scale(form: Form, factor: Poly) -> Form:
    return _collect([(b, poly.multiply(c, factor)) for b, c in form.terms.items()], form.like)


def _sum_forms(expr: Expr, args: list[Form]) -> Form:
    return _collect([pair for a in args for pair in a.terms.items()], expr)


def _sub(expr: Expr, args: list[Form]) -> Form:
    return _sum_forms(expr, [args[0], _scale(args[1], poly.constant(-1.0))])


def _neg(expr: Expr, args: list[Form]) -> Form:
    return _scale(args[0], poly.constant(-1.0))


def _fits(left: Form, right: Form) -> None:
    """Raise `TooLargeError` if there are too many pairs of terms to multiply them out."""
    if len(left.terms) * len(right.terms) > poly.LIMIT:
        raise poly.TooLargeError


def _product(expr: Expr, args: list[Form]) -> Form:
    """Elementwise product; scalars are coefficients and therefore need no alignment."""
    left, right = args
    _fits(left, right)
    pairs: list[tuple[Basis, Poly]] = []
    for b, c in left.terms.items():
        for d, e in right.terms.items():
            basis = (poly.times(b[0], d[0]), poly.times(b[1], d[1]), poly.times(b[2], d[2]))
            pairs.append((basis, poly.multiply(c, e)))
    return _collect(pairs, expr)


def _inverse(form: Form) -> Form:
    """One over a form, element by element."""
    if len(form.terms) == 1:
        ((basis, coefficient),) = form.terms.items()
        flipped = tuple(poly.raised(p, Fraction(-1)) for p in basis)
        return Form({(flipped[0], flipped[1], flipped[2]): poly.inverse(coefficient)}, form.like)
    if not form.rank:
        return Form({ONE: poly.inverse(form.scalar)}, form.like)
    return _atom_form(to_expr(form), Fraction(-1))


def _div(expr: Expr, args: list[Form]) -> Form | None:
    if not args[1].terms:
        return None
    return _product(expr, [args[0], _inverse(args[1])])


def _pow(expr: Expr, args: list[Form]) -> Form | None:
    """Small whole powers are expanded; others apply to the base as one atom."""
    exponent = expr.args[1].value
    base = args[0]
    if exponent is None or expr.args[1].shape or not base.terms:
        return None
    if exponent == int(exponent) and 1 <= abs(exponent) <= 4:
        result = base
        for _ in range(int(abs(exponent)) - 1):
            result = _product(base.like, [result, base])
        return _inverse(result) if exponent < 0 else result
    if exponent == 0:
        return None
    written = to_expr(base)
    return _atom_form(written, poly.exact(exponent)) if written.shape == base.like.shape else None


def _sqrt(expr: Expr, args: list[Form]) -> Form | None:
    written = to_expr(args[0])
    known = written.value is None and written.shape == args[0].like.shape
    return _atom_form(written, Fraction(1, 2)) if known else None


def _entries(product: Powers, size: int) -> Poly:
    """The sum of the entries of an elementwise product of vectors of one size."""
    if not product:
        return poly.constant(float(size))
    expr = poly.product_expr(product)
    return poly.constant(float(size)) if expr is None else poly.atom(build("sum", expr))


def _matvec(matrix: Form, vector: Form, like: Expr) -> Form:
    """`(A * outer(l, r)) @ v = l * (A @ (r * v))`; without `A` it is `l * sum(r * v)`."""
    _fits(matrix, vector)
    size = matrix.like.shape[1]
    pairs: list[tuple[Basis, Poly]] = []
    for (atoms, left, right), c in matrix.terms.items():
        for (_, factor, _), d in vector.terms.items():
            coefficient, inner = poly.multiply(c, d), poly.times(right, factor)
            if not atoms:
                pairs.append((((), left, ()), poly.multiply(coefficient, _entries(inner, size))))
                continue
            body, weight = poly.product_expr(inner), poly.product_expr(atoms)
            assert weight is not None
            hit = build("sum", weight) if body is None else build("matmul", weight, body)
            pairs.append((((), poly.times(left, ((hit, Fraction(1)),)), ()), coefficient))
    return _collect(pairs, like)


def _transposed(form: Form) -> Form:
    terms = {}
    for (atoms, left, right), c in form.terms.items():
        flipped = poly.powers({build("transpose", a): e for a, e in atoms})
        terms[(flipped, right, left)] = c
    return Form(terms, build("transpose", form.like))


def _transpose(expr: Expr, args: list[Form]) -> Form:
    return _transposed(args[0])


def _matmul(expr: Expr, args: list[Form]) -> Form | None:
    left, right = args
    if right.rank == 1:
        return _matvec(left, right, expr)
    if left.rank == 1:
        return _matvec(_transposed(right), left, expr)
    return _matmat(left, right, expr)


def _matmat(left: Form, right: Form, like: Expr) -> Form | None:
    """Products in which one factor is an outer product; two full matrices stay an atom each pair."""
    _fits(left, right)
    pairs: list[tuple[Basis, Poly]] = []
    for (atoms, row, column), c in left.terms.items():
        for (other, first, second), d in right.terms.items():
            coefficient, inner = poly.multiply(c, d), poly.times(column, first)
            made = _pair(atoms, other, inner, left, right)
            if made is None:
                return None
            basis, extra = made
            whole = (basis[0], poly.times(row, basis[1]), poly.times(second, basis[2]))
            pairs.append((whole, poly.multiply(coefficient, extra)))
    return _collect(pairs, like)


def _pair(atoms: Powers, other: Powers, inner: Powers, left: Form, right: Form) -> tuple[Basis, Poly] | None:
    """`A diag(inner) B` for elementwise products `A`, `B` of atoms (ones if empty)."""
    one: Poly = poly.constant(1.0)
    if not atoms and not other:
        return ONE, _entries(inner, left.like.shape[1])
    between = Form({((), inner, ()): one}, _axis_like(left.like, 1))
    if not other:
        hit = _matvec(Form({(atoms, (), ()): one}, left.like), between, _axis_like(left.like, 0))
        ((basis, extra),) = hit.terms.items()
        return basis, extra
    if not atoms:
        flipped = _transposed(Form({(other, (), ()): one}, right.like))
        hit = _matvec(flipped, between, _axis_like(right.like, 1))
        ((basis, extra),) = hit.terms.items()
        return ((), (), basis[1]), extra
    if inner:
        return None
    a, b = poly.product_expr(atoms), poly.product_expr(other)
    assert a is not None and b is not None
    return (((build("matmul", a, b), Fraction(1)),), (), ()), one


def _outer(expr: Expr, args: list[Form]) -> Form:
    _fits(args[0], args[1])
    pairs: list[tuple[Basis, Poly]] = [
        (((), b[1], d[1]), poly.multiply(c, e))
        for b, c in args[0].terms.items()
        for d, e in args[1].terms.items()
    ]
    return _collect(pairs, expr)


def _sum(expr: Expr, args: list[Form]) -> Form:
    """Sum over the last axis."""
    source = args[0]
    size = source.like.shape[-1]
    if source.rank == 2:
        ones = Form({ONE: poly.constant(1.0)}, _axis_like(source.like, 1))
        return _matvec(source, ones, expr)
    parts = [poly.multiply(c, _entries(b[1], size)) for b, c in source.terms.items()]
    result: Poly = {}
    for part in parts:
        result = poly.plus(result, part)
    return Form({ONE: result} if result else {}, expr)


def _mean(expr: Expr, args: list[Form]) -> Form:
    return _scale(_sum(expr, args), poly.constant(Fraction(1, args[0].like.shape[-1])))


def _dot(expr: Expr, args: list[Form]) -> Form:
    return _sum(expr, [_product(expr.args[0], args)])


def _expand_last(expr: Expr, args: list[Form]) -> Form:
    """A scalar keeps its basis; the entries of a vector become the rows of a matrix."""
    return Form(args[0].terms, expr)


def _where(expr: Expr, args: list[Form]) -> Form | None:
    """A number chooses the coefficients of what is finite anyhow: of symbols, and of their products."""
    _, yes, no = args
    if yes.terms == no.terms:
        return Form(yes.terms, expr)
    condition = expr.args[0]
    if condition.shape or not expr.shape or not all(map(_finite, (*yes.terms, *no.terms))):
        return None
    pairs: list[tuple[Basis, Poly]] = []
    for basis in dict.fromkeys((*yes.terms, *no.terms)):
        chosen = (poly.to_expr(form.terms.get(basis, {})) for form in (yes, no))
        pairs.append((basis, _number(build("where", condition, *chosen))))
    return _collect(pairs, expr)


def _number(expr: Expr) -> Poly:
    """A scalar that is not taken apart."""
    return poly.atom(expr) if expr.value is None else poly.constant(expr.value)


def _finite(basis: Basis) -> bool:
    """Whether it is a product of symbols, or of matrices and vectors that are symbols."""
    factors = [f for part in basis for f in part]
    return all(
        e > 0 and (a.op == SYMBOL or (a.op == "matmul" and all(b.op == SYMBOL for b in a.args)))
        for a, e in factors
    )


def _unbias(expr: Expr, args: list[Form]) -> Form:
    """A mean over one minus a power: a number."""
    _, beta, step = expr.args
    left = build("sub", 1.0, build("pow", beta, step))
    return _product(expr, [args[0], Form({ONE: _number(build("div", 1.0, left))}, left)])


_RULES: dict[str, Callable[[Expr, list[Form]], Form | None]] = {
    "add": _sum_forms,
    "sub": _sub,
    "neg": _neg,
    "mul": _product,
    "div": _div,
    "pow": _pow,
    "sqrt": _sqrt,
    "matmul": _matmul,
    "transpose": _transpose,
    "outer": _outer,
    "sum": _sum,
    "mean": _mean,
    "dot": _dot,
    "expand_last": _expand_last,
    "where": _where,
    "unbias": _unbias,
}
