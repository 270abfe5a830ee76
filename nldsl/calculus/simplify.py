"""Build expressions in a short form: constants folded, neutral elements dropped, signs gathered.

Every rewrite is an identity of real numbers wherever the left-hand side is finite.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nldsl.calculus.expression import Expr, node, number, walk
from nldsl.calculus.positive import positive
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand
from nldsl.catalog.values import Static
from nldsl.library import PRIMITIVES

Rewrite = Callable[[tuple[Expr, ...]], Expr | None]


def build(op: str, *args: Expr | float, **options: Static) -> Expr:
    """`op(args)` in a short form; plain numbers become constants.

    Example:
        >>> from nldsl.calculus.expression import symbol
        >>> x = symbol("x", (3,), "vector")
        >>> build("add", build("mul", 0.0, x), x) is x
        True
    """
    return apply(op, tuple(a if isinstance(a, Expr) else number(a) for a in args), options)


def apply(op: str, values: tuple[Expr, ...], options: Mapping[str, Static], owned: int = 0) -> Expr:
    """As `build`; the last `owned` of `values` are slow parameters of the primitive."""
    if op == "constant":
        return number(float(options["value"]))  # type: ignore[arg-type]
    if op == "dim":
        return number(values[0].shape[-1])
    if PRIMITIVES[op].elementwise:
        values = _without_expansion(values)
        folded = _fold(op, values)
        if folded is not None:
            return folded
    if op in ("add", "mul", "dot"):
        values = tuple(sorted(values, key=lambda v: (v.value is None, v.order)))
    rewrite = _REWRITES.get(op)
    short = rewrite(values) if rewrite is not None and not owned else None
    return short if short is not None else node(op, values, options, owned)


def substitute(expr: Expr, replacements: Mapping[Expr, Expr]) -> Expr:
    """`expr` with every occurrence of a key replaced by its value, simplified again."""
    done: dict[Expr, Expr] = {}
    for e in walk([expr]):
        if e in replacements:
            done[e] = replacements[e]
        elif e.args and any(done[a] is not a for a in e.args):
            done[e] = apply(e.op, tuple(done[a] for a in e.args), dict(e.options), e.owned)
        else:
            done[e] = e
    return done[expr]


def total(terms: Iterable[Expr]) -> Expr | None:
    """The sum of some expressions, `None` if there are none."""
    result: Expr | None = None
    for term in terms:
        result = term if result is None else build("add", result, term)
    return result


class ExprBuilder:
    """The `Builder` that the VJPs of the library write with."""

    def __call__(self, op: str | float, *args: Any, **options: Static) -> Expr:
        """A constant, or a primitive applied to expressions."""
        return build(op, *args, **options) if isinstance(op, str) else number(op)

    def operand(self, handle: Any) -> Operand:
        """Shape and kind of an expression."""
        expr: Expr = handle
        return expr.operand


def _without_expansion(values: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Elementwise operations broadcast scalars, so one already of full shape makes expansion idle."""
    result = list(values)
    for i, value in enumerate(values):
        inner = value
        while inner.op == "expand_last":
            inner = inner.args[0]
        if (
            inner is not value
            and not inner.shape
            and any(o.shape == value.shape and o.kind == value.kind for o in result[:i] + result[i + 1 :])
        ):
            result[i] = inner
    return tuple(result)


def _fold(op: str, values: tuple[Expr, ...]) -> Expr | None:
    """The number an operation on numbers gives, if it is finite."""
    numbers = [v.value for v in values]
    reference = PRIMITIVES[op].reference
    if reference is None or any(n is None for n in numbers) or op == "detach":
        return None
    if op in _ARITHMETIC:
        result = float(_ARITHMETIC[op](*numbers))
    else:
        with np.errstate(all="ignore"):
            result = float(reference(*(np.asarray(n) for n in numbers)))
    return number(result) if math.isfinite(result) else None


_ARITHMETIC: dict[str, Callable[..., float]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
}
"""What needs no library: the same numbers as its reference gives."""


def _full(expr: Expr, *others: Expr) -> bool:
    """Whether `expr` alone has the shape of the result."""
    return all(o.shape in ((), expr.shape) for o in others)


def _zero_like(expr: Expr) -> Expr | None:
    """Zero of the shape of a scalar or a vector."""
    if not expr.shape:
        return number(0.0)
    return node("expand_last", (number(0.0), expr), {}) if len(expr.shape) == 1 else None


def _is_zero(expr: Expr) -> bool:
    return expr.value == 0.0 or (expr.op == "expand_last" and expr.args[0].value == 0.0)


def _add(values: tuple[Expr, ...]) -> Expr | None:
    x, y = values
    for one, other in ((x, y), (y, x)):
        if _is_zero(one) and _full(other, one):
            return other
        if one.op == "neg" and other.op != "neg":
            return build("sub", other, one.args[0])
    if x.op == "neg" and y.op == "neg":
        return build("neg", build("add", x.args[0], y.args[0]))
    return build("mul", 2.0, x) if x is y else None


def _sub(values: tuple[Expr, ...]) -> Expr | None:
    x, y = values
    if _is_zero(y) and _full(x, y):
        return x
    if _is_zero(x) and _full(y, x):
        return build("neg", y)
    if y.op == "neg":
        return build("add", x, y.args[0])
    return _zero_like(x) if x is y else None


def _mul(values: tuple[Expr, ...]) -> Expr | None:
    x, y = values
    if x.value is not None:
        return _scaled(x.value, y)
    for one, other in ((x, y), (y, x)):
        if _is_zero(one) and _full(one, other):
            return one
    if x.op == "neg" or y.op == "neg":
        signs = (x.op == "neg") != (y.op == "neg")
        product = build("mul", *(v.args[0] if v.op == "neg" else v for v in values))
        return build("neg", product) if signs else product
    for one, other in ((x, y), (y, x)):
        if one.op == "mul" and one.args[0].value is not None:
            return build("mul", one.args[0], build("mul", one.args[1], other))
    return build("pow", x, 2.0) if x is y else None


def _scaled(factor: float, x: Expr) -> Expr | None:
    """A number times an expression."""
    if factor == 1.0:
        return x
    if factor == 0.0:
        return _zero_like(x)
    if factor == -1.0:
        return build("neg", x)
    if x.op == "neg":
        return build("mul", -factor, x.args[0])
    if x.op == "mul" and x.args[0].value is not None:
        return build("mul", factor * x.args[0].value, x.args[1])
    return None


def _div(values: tuple[Expr, ...]) -> Expr | None:
    x, y = values
    if y.value == 1.0:
        return x
    if x.op == "neg":
        return build("neg", build("div", x.args[0], y))
    if y.op == "neg":
        return build("neg", build("div", x, y.args[0]))
    if _is_zero(x) and _full(x, y):
        return x
    return None


def _neg(values: tuple[Expr, ...]) -> Expr | None:
    x = values[0]
    if x.op == "neg":
        return x.args[0]
    if x.op == "sub":
        return build("sub", x.args[1], x.args[0])
    if x.op == "mul" and x.args[0].value is not None:
        return build("mul", -x.args[0].value, x.args[1])
    return x if _is_zero(x) else None


def _pow(values: tuple[Expr, ...]) -> Expr | None:
    x, power = values
    if power.value == 1.0:
        return x
    if power.value == 0.0 and not x.shape:
        return number(1.0)
    if power.value == 2.0 and x.op == "neg":
        return build("pow", x.args[0], 2.0)
    return None


def _log(values: tuple[Expr, ...]) -> Expr | None:
    x = values[0]
    if x.op == "exp":
        return x.args[0]
    if x.op == "sigmoid":
        return build("logsigmoid", x.args[0])
    if x.op == "sub" and x.args[0].value == 1.0 and x.args[1].op == "sigmoid":
        return build("logsigmoid", build("neg", x.args[1].args[0]))
    if x.op == "mul" and all(positive(a) for a in x.args):
        return build("add", build("log", x.args[0]), build("log", x.args[1]))
    if x.op == "pow" and positive(x.args[0]) and x.args[1].value is not None:
        return build("mul", x.args[1], build("log", x.args[0]))
    return None


def _exp(values: tuple[Expr, ...]) -> Expr | None:
    x = values[0]
    return build("sigmoid", x.args[0]) if x.op == "logsigmoid" else None


def _where(values: tuple[Expr, ...]) -> Expr | None:
    condition, x, y = values
    if condition.value is not None:
        chosen, other = (x, y) if condition.value else (y, x)
        return chosen if _full(chosen, other) else None
    return x if x is y and _full(x, condition) else None


def _sum(values: tuple[Expr, ...]) -> Expr | None:
    x = values[0]
    if x.op == "expand_last":
        return build("mul", float(x.shape[-1]), x.args[0])
    if x.kind != "vector":
        return None
    if x.op == "neg":
        return build("neg", build("sum", x.args[0]))
    if x.op == "pow" and x.args[1].value == 2.0:
        return build("dot", x.args[0], x.args[0])
    if x.op == "mul" and x.args[0].shape == x.args[1].shape:
        return build("dot", *x.args)
    if x.op == "mul":
        scalar, vector = x.args if not x.args[0].shape else x.args[::-1]
        return build("mul", scalar, build("sum", vector))
    return None


def _dot(values: tuple[Expr, ...]) -> Expr | None:
    x, y = values
    if x.kind == "vector" and (x.op == "neg") != (y.op == "neg"):
        return build("neg", build("dot", *(v.args[0] if v.op == "neg" else v for v in values)))
    return None


def _transpose(values: tuple[Expr, ...]) -> Expr | None:
    x = values[0]
    if x.op == "transpose":
        return x.args[0]
    return build("outer", x.args[1], x.args[0]) if x.op == "outer" else None


def _matmul(values: tuple[Expr, ...]) -> Expr | None:
    x, y = values
    if x.kind == "matrix" and y.kind == "vector":
        if x.op == "transpose":
            return build("matmul", y, x.args[0])
        if x.op == "outer":
            return build("mul", build("dot", x.args[1], y), x.args[0])
    if x.kind == "vector":
        if y.op == "transpose":
            return build("matmul", y.args[0], x)
        if y.op == "outer":
            return build("mul", build("dot", x, y.args[0]), y.args[1])
    return None


_REWRITES: dict[str, Rewrite] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "pow": _pow,
    "log": _log,
    "exp": _exp,
    "where": _where,
    "sum": _sum,
    "dot": _dot,
    "transpose": _transpose,
    "matmul": _matmul,
}
