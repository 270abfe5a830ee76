"""Every claim of the analysis holds at random points, and seeded faults in the analysis are caught."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.calculus import affine, normal, polynomial, rules
from nldsl.calculus.affine import affine_in
from nldsl.calculus.differentiate import cotangents
from nldsl.calculus.evaluate import evaluate
from nldsl.calculus.expression import Expr, number, symbol, symbols, walk
from nldsl.calculus.normal import canonical
from nldsl.calculus.polynomial import TooLargeError
from nldsl.calculus.positive import not_negative, positive
from nldsl.calculus.rules import RuleSymbols
from nldsl.calculus.simplify import build
from nldsl.catalog import ContractError

P = symbol("p", (3,), "vector", role="prediction")
T = symbol("t", (3,), "vector")
A = symbol("a")
C = symbol("c")
W = symbol("W", (3, 4), "matrix", role="weight")
K = symbol("k", (4,), "vector")

Random = np.random.Generator


def points(expr: Expr, rng: Random) -> dict[Expr, Any]:
    """A value for every symbol."""
    return {s: rng.normal(size=s.shape) for s in symbols(expr)}


def scalar_expr(rng: Random, depth: int) -> Expr:
    """A random scalar in P, T, A, C."""
    if depth == 0:
        return [A, C, number(0.5), number(2.0), number(-1.0)][rng.integers(5)]
    op = ["add", "sub", "mul", "neg", "sum", "dot", "sigmoid", "pow", "mean", "div"][rng.integers(10)]
    if op in ("sum", "mean"):
        return build(op, vector_expr(rng, depth - 1))
    if op == "dot":
        return build(op, vector_expr(rng, depth - 1), vector_expr(rng, depth - 1))
    if op == "pow":
        return build(op, scalar_expr(rng, depth - 1), float(rng.integers(1, 4)))
    if op in ("neg", "sigmoid"):
        return build(op, scalar_expr(rng, depth - 1))
    if op == "div":
        square = build("pow", scalar_expr(rng, depth - 1), 2.0)
        return build(op, scalar_expr(rng, depth - 1), build("add", 1.0, square))
    return build(op, scalar_expr(rng, depth - 1), scalar_expr(rng, depth - 1))


def vector_expr(rng: Random, depth: int) -> Expr:
    """A random vector of three, often one that looks linear in P."""
    if depth == 0:
        return [P, T, P, build("matmul", W, K)][rng.integers(4)]
    op = ["add", "sub", "mul", "scale", "scale", "neg", "pow", "abs", "where", "apply", "lift"][
        rng.integers(11)
    ]
    x = vector_expr(rng, depth - 1)
    if op == "scale":
        return build("mul", scalar_expr(rng, depth - 1), x)
    if op in ("neg", "abs"):
        return build(op, x)
    if op == "pow":
        return build(op, x, float(rng.integers(1, 4)))
    if op == "where":
        return build(
            op, build("lt", x, scalar_expr(rng, 0)), vector_expr(rng, depth - 1), vector_expr(rng, depth - 1)
        )
    if op == "lift":
        return build("add", x, scalar_expr(rng, depth - 1))
    if op == "apply":
        outer = build("outer", x, vector_expr(rng, depth - 1))
        return build("matmul", outer, vector_expr(rng, depth - 1))
    return build(op, x, vector_expr(rng, depth - 1))


def matrix_expr(rng: Random, depth: int) -> Expr:
    """A random 3 x 4 matrix in W and K."""
    if depth == 0:
        return W if rng.integers(2) else build("outer", build("matmul", W, K), K)
    op = ["add", "sub", "scale", "neg", "gram", "outer", "mul", "left"][rng.integers(8)]
    x = matrix_expr(rng, depth - 1)
    if op == "scale":
        return build("mul", [A, C, build("dot", K, K)][rng.integers(3)], x)
    if op == "neg":
        return build("neg", x)
    if op == "gram":
        return build("matmul", x, build("outer", K, K))
    if op == "outer":
        return build("outer", build("matmul", x, K), K)
    if op == "left":
        return build("outer", T, build("matmul", P, x))
    if op == "mul":
        return build("mul", x, x) if rng.integers(2) else build("transpose", build("transpose", x))
    return build(op, x, matrix_expr(rng, depth - 1))


def close(found: Any, expected: Any) -> None:
    """Equal up to rounding, relative to the size of the numbers."""
    scale = 1.0 + float(np.max(np.abs(expected)))
    if np.isfinite(scale) and scale < 1e8:
        np.testing.assert_allclose(
            np.broadcast_to(found, np.shape(expected)), expected, rtol=1e-7, atol=1e-8 * scale
        )


def check_canonical(expr: Expr, rng: Random) -> None:
    """Writing an expression in normal form does not change its value."""
    try:
        written = canonical(expr)
    except TooLargeError:
        return
    values = points(expr, rng)
    close(
        evaluate(
            written, {**values, **{s: rng.normal(size=s.shape) for s in symbols(written) - set(values)}}
        ),
        evaluate(expr, values),
    )


def check_affine(expr: Expr, about: Expr, rng: Random) -> bool:
    """A claimed affine form has the value of the expression, and its coefficients are constant."""
    claim = affine_in(expr, about)
    if claim is None:
        return False
    values = points(expr, rng) | {about: rng.normal(size=about.shape)}
    coefficients = [evaluate(p.coefficient, values) for p in claim.parts]
    constant = evaluate(claim.constant, values)
    factors = [None if p.factor is None else evaluate(p.factor, values) for p in claim.parts]
    for _ in range(2):
        at = rng.normal(size=about.shape)
        total = constant + np.zeros(expr.shape)
        for part, coefficient, factor in zip(claim.parts, coefficients, factors, strict=True):
            applied = {
                "scalar": lambda at=at: at,
                "diagonal": lambda at=at, factor=factor: factor * at,
                "product": lambda at=at, factor=factor: at @ factor,
                "erase": lambda at=at, factor=factor: np.outer(at @ factor, factor),
            }[part.kind]()
            total = total + coefficient * applied
        close(total, evaluate(expr, {**values, about: at}))
    return True


def check_rule(expr: Expr, s: RuleSymbols, rng: Random) -> bool:
    """A claimed rule form has the value of the rule."""
    analysis = rules.form_of("random", (expr,), [], s, (s.weight, s.gradient, s.dy))
    if analysis.form is None:
        return False
    form = analysis.form
    base = {x: rng.normal(size=x.shape) for x in (s.x, s.step, A, C)}
    assert all(symbols(coefficient) <= set(base) for coefficient in (form.keep, form.erase, form.rate))
    keep, erase, rate = (float(evaluate(c, base)) for c in (form.keep, form.erase, form.rate))
    for _ in range(2):
        w, dy, x = rng.normal(size=(3, 4)), rng.normal(size=3), base[s.x]
        values = {**base, s.weight: w, s.dy: dy, s.gradient: np.outer(dy, x)}
        expected = keep * w - erase * np.outer(w @ x, x) - rate * np.outer(dy, x)
        close(expected, evaluate(expr, values))
    return True


def rule_expr(rng: Random, s: RuleSymbols, depth: int) -> Expr:
    """A random new weight, often one of the known forms."""
    x, w, g = s.x, s.weight, s.gradient
    square = build("dot", x, x)
    if depth == 0:
        hit = build("outer", build("matmul", w, x), x)
        return [
            w,
            g,
            hit,
            build("outer", s.dy, x),
            build("mul", A, g),
            build("matmul", w, build("outer", x, x)),
        ][rng.integers(6)]
    left, right = rule_expr(rng, s, depth - 1), rule_expr(rng, s, depth - 1)
    op = ["add", "sub", "scale", "rate", "neg", "step", "mul"][rng.integers(7)]
    if op == "scale":
        energy = build("sum", build("sum", build("mul", g, g)))
        scalars = [A, A, C, number(0.5), square, build("dot", s.dy, s.dy), energy]
        return build("mul", scalars[rng.integers(len(scalars))], left)
    if op == "rate":
        return build("div", left, build("add", 1.0, build("mul", build("pow", A, 2.0), square)))
    if op == "neg":
        return build("neg", left)
    if op == "step":
        return build("sub", w, build("mul", A, left))
    return build(op, left, right)


def run_corpus(count: int) -> dict[str, int]:
    """All checks on a fixed corpus; how many claims were made of each kind."""
    made = {"vector": 0, "matrix": 0, "rule": 0}
    for seed in range(count):
        rng = np.random.default_rng(seed)
        with np.errstate(all="ignore"):
            vector, scalar = vector_expr(rng, 2), scalar_expr(rng, 3)
            check_canonical(vector, rng)
            check_canonical(scalar, rng)
            made["vector"] += check_affine(vector, P, rng)
            check_affine(scalar, A, rng)
            loss = build("sum", build("mul", vector_expr(rng, 1), vector_expr(rng, 1)))
            slopes = cotangents(loss, [P])[P]
            if slopes:
                check_affine(slopes[0], P, rng)
            matrix = matrix_expr(rng, 2)
            check_canonical(matrix, rng)
            made["matrix"] += check_affine(matrix, W, rng)
            s = RuleSymbols.of((3, 4))
            made["rule"] += check_rule(rule_expr(rng, s, 2), s, rng)
    return made


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_claims_hold_at_random_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        for expr in (vector_expr(rng, 3), scalar_expr(rng, 3), matrix_expr(rng, 3)):
            check_canonical(expr, rng)
        check_affine(vector_expr(rng, 3), P, rng)
        check_affine(matrix_expr(rng, 3), W, rng)
        check_affine(scalar_expr(rng, 3), A, rng)
        s = RuleSymbols.of((3, 4))
        check_rule(rule_expr(rng, s, 3), s, rng)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_positive_is_positive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    expr = positive_candidate(rng, 3)
    values = points(expr, rng)
    with np.errstate(all="ignore"):
        finite = all(np.isfinite(evaluate(e, values)) for e in walk([expr]))
        value = evaluate(expr, values)
    assert not finite or not positive(expr) or value > 0
    assert not finite or not not_negative(expr) or value >= 0


def positive_candidate(rng: Random, depth: int) -> Expr:
    """A random expression that is often positive."""
    if depth == 0:
        return [A, C, number(0.5), number(-0.5), number(0.0)][rng.integers(5)]
    op = [
        "sigmoid",
        "exp",
        "softplus",
        "mul",
        "add",
        "div",
        "neg",
        "sub",
        "pow",
        "abs",
        "maximum",
        "minimum",
        "relu",
        "where",
        "sqrt",
        "log",
        "tanh",
    ][rng.integers(17)]
    x, y = positive_candidate(rng, depth - 1), positive_candidate(rng, depth - 1)
    if op == "where":
        return build(op, build("lt", A, C), x, y)
    if op == "pow":
        return build(op, x, float(rng.integers(1, 4)))
    return build(op, x, y) if op in ("mul", "add", "div", "sub", "maximum", "minimum") else build(op, x)


def test_the_corpus_is_not_vacuous() -> None:
    made = run_corpus(300)
    assert made["vector"] >= 60 and made["matrix"] >= 60 and made["rule"] >= 60, made


Fault = tuple[Any, str, Callable[[Any], Any]]


def _keeps_sign(original: Any) -> Any:
    return lambda expr, args: normal._sum_forms(expr, args)


def _forgets_inner(original: Any) -> Any:
    """`(A * outer(l, r)) @ v` without `r`."""

    def wrong(matrix: normal.Form, vector: normal.Form, like: Expr) -> normal.Form:
        terms = {(b[0], b[1], ()): c for b, c in matrix.terms.items()}
        return original(normal.Form(terms, matrix.like), vector, like)

    return wrong


def _not_transposed(original: Any) -> Any:
    return lambda form: normal.Form(
        {(a, left, right): c for (a, left, right), c in form.terms.items()}, form.like
    )


def _ignores_exponents(original: Any) -> Any:
    def wrong(product: Any, factor: Expr) -> Any:
        return tuple((a, e) for a, e in product if a is not factor)

    return wrong


def _everything_free(original: Any) -> Any:
    return lambda coefficient, about: (coefficient, {})


FAULTS: dict[str, Fault] = {
    "subtraction adds": (normal, "sub", _keeps_sign),
    "negation keeps the sign": (normal, "neg", lambda f: lambda e, args: args[0]),
    "matrix product forgets a factor": (normal, "_matvec", _forgets_inner),
    "transpose keeps the sides": (normal, "_transposed", _not_transposed),
    "powers lose an order": (normal, "pow", lambda f: lambda e, args: args[0]),
    "mean is a sum": (normal, "mean", lambda f: normal._sum),
    "sum of ones is one": (normal, "_entries", lambda f: lambda p, n: f(p, 1)),
    "inner product without its second factor": (
        normal,
        "dot",
        lambda f: lambda e, args: normal._sum(e, [args[0]]),
    ),
    "outer product swaps its factors": (normal, "outer", lambda f: lambda e, args: f(e, args[::-1])),
    "division multiplies": (normal, "div", lambda f: normal._product),
    "products of powers keep the larger": (polynomial, "times", lambda f: lambda a, b: a or b),
    "inverse of a sum is the sum of inverses": (
        polynomial,
        "inverse",
        lambda f: lambda p: {polynomial.raised(k, Fraction(-1)): 1 / c for k, c in p.items()},
    ),
    "a square counts as linear": (affine, "_without", _ignores_exponents),
    "coefficients may depend on the symbol": (affine, "_by_dependence", _everything_free),
    "nothing depends on anything (affine)": (affine, "depends", lambda f: lambda e, on: e in on),
    "nothing depends on anything (rules)": (rules, "depends", lambda f: lambda e, on: False),
    "any outer product with x is the erase term": (
        rules,
        "_tensor",
        lambda f: lambda b, s, m: f(b, s, m) or (s.x if b[2] else None),
    ),
    "the outer gradient is the erase term": (
        rules,
        "_tensor",
        lambda f: lambda b, s, m: s.x if b[2] and f(b, s, m) is s.gradient else f(b, s, m),
    ),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_seeded_faults_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, change = FAULTS[fault]
    if module is normal and name in normal._RULES:
        monkeypatch.setitem(normal._RULES, name, change(normal._RULES[name]))
    else:
        monkeypatch.setattr(module, name, change(getattr(module, name)))
    # A wrong value, or a form whose pieces no longer fit together.
    with pytest.raises((AssertionError, ContractError, ValueError)):
        run_corpus(300)
