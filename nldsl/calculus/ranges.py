"""Between which numbers does an expression lie, whatever its inputs are?

Bounded functions (`sigmoid(a)`, `exp(-softplus(a))`) become independent unknowns with a known range.  An
expression that is in each unknown a quotient of two affine functions is monotone in each, so its
extremes lie at the corners of the box of ranges: the answer is exact.  Else plain interval
arithmetic gives a range that may be too wide, never too narrow.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product

from nldsl.calculus.expression import SYMBOL, Expr

INFINITY = math.inf
LARGEST = sys.float_info.max
MAX_UNKNOWNS = 8
_FAR = 1e12
"""Stands for infinity at a corner."""


@dataclass(frozen=True)
class Interval:
    """A range of numbers; an end is open if it is approached and never reached.

    Example:
        >>> str(Interval(0.0, 1.0)), str(Interval(0.0, 1.0, low_open=True)), str(Interval())
        ('[0, 1]', '(0, 1]', 'any number')
    """

    low: float = -INFINITY
    high: float = INFINITY
    low_open: bool = False
    high_open: bool = False

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "any number"
        if self.low == self.high:
            return f"{self.low:.4g}"
        left = "(" if self.low_open or math.isinf(self.low) else "["
        right = ")" if self.high_open or math.isinf(self.high) else "]"
        return f"{left}{_end(self.low)}, {_end(self.high)}{right}"

    @property
    def known(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def below(self, bound: float) -> bool:
        """Whether every number of the range is below `bound`."""
        return self.high < bound or (self.high == bound and self.high_open)

    def above(self, bound: float) -> bool:
        """Whether every number of the range is above `bound`."""
        return self.low > bound or (self.low == bound and self.low_open)


def _end(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ("inf" if value > 0 else "-inf")


UNIT = Interval(0.0, 1.0, low_open=True, high_open=True)
POSITIVE = Interval(0.0, INFINITY, low_open=True)
SQUARE = Interval(0.0, INFINITY)
_FUNCTIONS: dict[str, tuple[Callable[[float], float], float, float]] = {
    "sigmoid": (lambda x: 1.0 / (1.0 + math.exp(-max(min(x, 700.0), -700.0))), 0.0, 1.0),
    "exp": (lambda x: math.exp(min(x, 700.0)), 0.0, INFINITY),
    "softplus": (lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))), 0.0, INFINITY),
    "tanh": (math.tanh, -1.0, 1.0),
    "logsigmoid": (lambda x: min(x, 0.0) - math.log1p(math.exp(-abs(x))), -INFINITY, 0.0),
    "relu": (lambda x: max(x, 0.0), 0.0, INFINITY),
}
"""Functions that rise: what they do, and where they end at minus and plus infinity."""
_FIXED: dict[str, Interval] = {
    "softmax": Interval(0.0, 1.0, low_open=True),
    "l2norm": Interval(-1.0, 1.0),
    "sin": Interval(-1.0, 1.0),
    "cos": Interval(-1.0, 1.0),
    "abs": SQUARE,
    "sqrt": SQUARE,
    "silu": Interval(-0.2785, INFINITY),
    "gelu": Interval(-0.17, INFINITY),
    "position": SQUARE,
    "erf": Interval(-1.0, 1.0),
    "sign": Interval(-1.0, 1.0),
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne"), Interval(0.0, 1.0)),
}
_THROUGH = frozenset({"split", "merge", "detach", "expand_last", "parts"})
_COMPOSED = frozenset({"add", "sub", "mul", "div", "neg"})


@dataclass
class Unknowns:
    """The unknowns of some expressions, each with its range; `known` gives ranges in advance."""

    known: Mapping[Expr, Interval] = field(default_factory=dict)
    found: dict[Expr, Interval] = field(default_factory=dict)

    def bare(self, expr: Expr) -> Expr:
        """`expr` without what only changes shapes; registers its unknowns."""
        while (expr.op in _THROUGH or _of_one(expr)) and expr not in self.known:
            expr = expr.args[0]
        if expr.value is not None:
            return expr
        if expr not in self.known and (stabilised := _from_the_larger(expr)) is not None:
            self.found.setdefault(expr, stabilised)
        elif expr.op in _COMPOSED and expr not in self.known:
            for arg in expr.args:
                self.bare(arg)
        elif expr not in self.found:
            self.found[expr] = self.known.get(expr) or self._atom(expr)
        return expr

    def value(self, expr: Expr, at: Mapping[Expr, float]) -> float:
        """A number for `expr` where the unknowns are `at`; `nan` where a denominator vanishes."""
        expr = self.bare(expr)
        if expr in at:
            return at[expr]
        if expr.value is not None:
            return expr.value
        args = [self.value(a, at) for a in expr.args]
        match expr.op:
            case "add":
                return args[0] + args[1]
            case "sub":
                return args[0] - args[1]
            case "mul":
                return args[0] * args[1]
            case "div":
                return args[0] / args[1] if args[1] else math.nan
        return -args[0]

    def _atom(self, expr: Expr) -> Interval:
        if expr.op in _FUNCTIONS:
            return _rising(expr.op, range_of(expr.args[0], self.known))
        if expr.op in ("mean", "sum"):
            inner = range_of(expr.args[0], self.known)
            return inner if expr.op == "mean" else _summed(inner)
        if expr.op in ("maximum", "minimum"):
            a, b = (range_of(x, self.known) for x in expr.args)
            pick = max if expr.op == "maximum" else min
            return Interval(pick(a.low, b.low), pick(a.high, b.high))
        if expr.op == "where":
            a, b = (range_of(x, self.known) for x in expr.args[1:])
            return Interval(min(a.low, b.low), max(a.high, b.high))
        if expr.op == "pow":
            return _raised(*(range_of(x, self.known) for x in expr.args))
        if expr.op == "outer":
            return _product(*(range_of(x, self.known) for x in expr.args))
        if expr.op == "index":
            size = dict(expr.options)["size"]
            return Interval(0.0, float(size) - 1.0)  # type: ignore[arg-type]
        if (expr.op, expr.role, expr.name) == (SYMBOL, "rule", "step"):
            return Interval(1.0)
        square = expr.op == "dot" and expr.args[0] is expr.args[1]
        return SQUARE if square else _FIXED.get(expr.op, Interval())


def _from_the_larger(expr: Expr) -> Interval | None:
    """`a - max(a, b)` is at most zero, `a - min(a, b)` at least: what stabilised exponentials are made of."""
    if expr.op != "sub" or expr.args[1].op not in ("maximum", "minimum"):
        return None
    first, bound = expr.args
    if not any(first is a for a in bound.args):
        return None
    return Interval(high=0.0) if bound.op == "maximum" else SQUARE


def _summed(inner: Interval) -> Interval:
    """A sum of some numbers of one sign has that sign."""
    low = 0.0 if inner.low >= 0.0 else -INFINITY
    high = 0.0 if inner.high <= 0.0 else INFINITY
    return Interval(low, high, inner.low_open and low == 0.0, inner.high_open and high == 0.0)


def _raised(base: Interval, power: Interval) -> Interval:
    """`base ** power`, where one of them is a number."""
    if power.low == power.high == 2.0:
        return _square(base)
    if base.low == base.high == 1.0:
        return base
    if power.low == power.high and base.low >= 0.0:
        return _rooted(base, power.low)
    if base.low != base.high or base.low <= 0.0:
        return Interval()
    if base.low < 1.0:
        return _power(1.0 / base.low, Interval(-power.high, -power.low, power.high_open, power.low_open))
    return _power(base.low, power)


def _rooted(base: Interval, power: float) -> Interval:
    """`x ** power` for `x` of at least zero: it rises, or falls where the power is negative."""
    if power == 0.0:
        return Interval(1.0, 1.0)
    ends = [
        (_end_of(x, power), o or math.isinf(x))
        for x, o in ((base.low, base.low_open), (base.high, base.high_open))
    ]
    (low, low_open), (high, high_open) = ends if power > 0.0 else ends[::-1]
    return Interval(min(low, LARGEST), high, low_open, high_open or math.isinf(high))


def _end_of(x: float, power: float) -> float:
    """`x ** power` for `x` of at least zero; infinity where that is too large for a number."""
    if x == 0.0:
        return INFINITY if power < 0.0 else float(power == 0.0)
    try:
        return float(x**power)
    except OverflowError:
        return INFINITY


def _power(base: float, inner: Interval) -> Interval:
    """`base ** x` for a base of at least one: it rises."""
    low, high = (_end_of(base, x) for x in (inner.low, inner.high))
    bottom = inner.low == -INFINITY
    return Interval(min(low, LARGEST), high, inner.low_open or bottom, inner.high_open or math.isinf(high))


def _product(a: Interval, b: Interval) -> Interval:
    """`x y`: the extremes lie at corners; zero times infinity is zero, for an end is never reached."""
    ends = [
        (0.0 if 0.0 in (x, y) else x * y, m or n)
        for (x, m), (y, n) in product(
            ((a.low, a.low_open), (a.high, a.high_open)), ((b.low, b.low_open), (b.high, b.high_open))
        )
    ]
    low, high = min(e for e, _ in ends), max(e for e, _ in ends)
    reached = {e for e, is_open in ends if not is_open}
    return Interval(low, high, low not in reached, high not in reached)


def _of_one(expr: Expr) -> bool:
    """Whether an expression is the mean or the sum of single numbers."""
    return expr.op in ("mean", "sum") and expr.args[0].shape[-1:] == (1,)


def range_of(expr: Expr, known: Mapping[Expr, Interval] | None = None) -> Interval:
    """The range of `expr`; `known` are ranges of expressions in it.

    Example:
        >>> from nldsl.calculus import build, symbol
        >>> gate = build("sigmoid", symbol("a"))
        >>> rate = build("mul", build("add", 1.0, gate), build("sigmoid", symbol("b")))
        >>> str(range_of(rate)), str(range_of(build("sub", gate, rate)))
        ('(0, 2)', '(-1, 1)')
    """
    unknowns = Unknowns(known or {})
    root = unknowns.bare(expr)
    if root in unknowns.found:
        return unknowns.found[root]
    if len(unknowns.found) <= MAX_UNKNOWNS and all(_monotone(root, u, unknowns) for u in unknowns.found):
        return _corners(root, unknowns)
    return _plain(root, unknowns)


def _rising(name: str, inner: Interval) -> Interval:
    function, at_low, at_high = _FUNCTIONS[name]
    low = at_low if inner.low == -INFINITY else function(inner.low)
    high = at_high if inner.high == INFINITY else function(inner.high)
    # `relu` reaches its lower end, the others only approach theirs.
    low_open = inner.low_open or (inner.low == -INFINITY and name != "relu")
    return Interval(low, high, low_open, inner.high_open or inner.high == INFINITY)


def _square(inner: Interval) -> Interval:
    ends = (inner.low**2, inner.high**2)
    low = 0.0 if inner.low <= 0.0 <= inner.high else min(ends)
    return Interval(low, max(ends))


def _degree(expr: Expr, unknown: Expr, unknowns: Unknowns) -> tuple[int, int]:
    """Degrees of numerator and denominator of `expr` in `unknown`."""
    expr = unknowns.bare(expr)
    if expr is unknown:
        return 1, 0
    if expr.op not in _COMPOSED or expr in unknowns.found:
        return 0, 0
    degrees = [_degree(a, unknown, unknowns) for a in expr.args]
    if expr.op == "neg":
        return degrees[0]
    (a, b), (c, d) = degrees
    if expr.op == "mul":
        return a + c, b + d
    if expr.op == "div":
        return a + d, b + c
    if b == 0 or d == 0 or unknowns.bare(expr.args[0]) is not unknowns.bare(expr.args[1]):
        return max(a + d, c + b), b + d
    return max(a, c), b


def _monotone(expr: Expr, unknown: Expr, unknowns: Unknowns) -> bool:
    over, under = _degree(expr, unknown, unknowns)
    return over <= 1 and under <= 1


def _corners(expr: Expr, unknowns: Unknowns) -> Interval:
    """Smallest and largest value over the corners; an end is reached if a face without open ends has it."""
    names = list(unknowns.found)
    boxes = [unknowns.found[n] for n in names]
    ends = [(_near(box.low), _near(box.high)) for box in boxes]
    values: dict[tuple[int, ...], float] = {}
    for corner in product((0, 1), repeat=len(names)):
        at = {n: ends[i][corner[i]] for i, n in enumerate(names)}
        values[corner] = unknowns.value(expr, at)
    if any(math.isnan(v) for v in values.values()) or _has_pole(expr, unknowns):
        return _plain(expr, unknowns)
    low, high = min(values.values()), max(values.values())
    opened = [(box.low_open or math.isinf(box.low), box.high_open or math.isinf(box.high)) for box in boxes]
    return Interval(
        _far(low), _far(high), not _reached(low, values, opened), not _reached(high, values, opened)
    )


def _has_pole(expr: Expr, unknowns: Unknowns) -> bool:
    """Whether some denominator may vanish or change its sign."""
    expr = unknowns.bare(expr)
    if expr.op not in _COMPOSED or expr in unknowns.found:
        return False
    if expr.op == "div":
        under = range_of(expr.args[1], {**unknowns.known, **unknowns.found})
        if not (under.above(0.0) or under.below(0.0)):
            return True
    return any(_has_pole(a, unknowns) for a in expr.args)


def _near(end: float) -> float:
    return max(min(end, _FAR), -_FAR)


def _far(value: float) -> float:
    if abs(value) >= _FAR / 1e3:
        return math.copysign(INFINITY, value)
    return round(value, 9)


def _reached(
    extreme: float, values: Mapping[tuple[int, ...], float], opened: list[tuple[bool, bool]]
) -> bool:
    """Whether a corner has this value and keeps it when every open end in it moves inwards."""
    close = {corner for corner, v in values.items() if math.isclose(v, extreme, abs_tol=1e-9)}
    for corner in close:
        free = [i for i, side in enumerate(corner) if opened[i][side]]
        face = product(*((0, 1) if i in free else (side,) for i, side in enumerate(corner)))
        if all(c in close for c in face):
            return True
    return False


def _plain(expr: Expr, unknowns: Unknowns) -> Interval:
    """Interval arithmetic, operation by operation."""
    expr = unknowns.bare(expr)
    if expr in unknowns.found:
        return unknowns.found[expr]
    if expr.value is not None:
        return Interval(expr.value, expr.value)
    parts = [_plain(a, unknowns) for a in expr.args]
    a = parts[0]
    if expr.op == "neg":
        return Interval(-a.high, -a.low, a.high_open, a.low_open)
    b = parts[1]
    if expr.op == "add":
        return Interval(a.low + b.low, a.high + b.high, a.low_open or b.low_open, a.high_open or b.high_open)
    if expr.op == "sub":
        return Interval(a.low - b.high, a.high - b.low, a.low_open or b.high_open, a.high_open or b.low_open)
    if expr.op == "div":
        if not (b.above(0.0) or b.below(0.0)):
            return Interval()
        b = Interval(_over(b.high, -1.0), _over(b.low, 1.0))
    ends = [x * y if x and y else 0.0 for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(min(ends), max(ends))


def _over(value: float, sign: float) -> float:
    return math.copysign(INFINITY, sign) if value == 0.0 else 1.0 / value
