"""NL0430, NL0431: rates for which a memory can blow up, with the range for which it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from nldsl.calculus import Expr, build, number, substitute, symbol
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.notation import TEXT, Style, written
from nldsl.calculus.ranges import Interval, Unknowns, range_of
from nldsl.review.steps import Step

SLACK = 1e-6
"""Beyond one by less than this is rounding."""
_POINTS = 9
_MAX_SAMPLED = 4
_FAR = 1e6


@dataclass(frozen=True)
class Blowup:
    """A step that may multiply what a memory holds by more than one in size.

    `factor` is the number as an expression over the gates, `low` and `high` its ends.  `limit` says in words
    what the rate must stay below, empty if that is not one number or expression.
    """

    step: Step
    stale: bool
    factor: str
    low: float
    high: float
    rate: str
    limit: str
    cause: str

    @property
    def excess(self) -> float:
        """How far beyond one it reaches."""
        return max(-1.0 - self.low, self.high - 1.0)


def blowup(step: Step, key: str) -> Blowup | None:
    """Whether a write is expanding for some values of its gates; `None` if not, or if that is not known.

    Exact where every gate occurs at most once above and below a fraction bar; a gradient that is
    older than its token is tried on a grid, so what is reported is a true example.
    """
    if not step.understood:
        return None
    if step.momentum is not None:
        return _with_momentum(step, key)
    whole = step.factor if step.chunk == 1 else step.stay
    ends = _ends(step, whole)
    if _beyond(*ends):
        return _found(step, False, whole, ends, key)
    if step.chunk > 1 and scalar_value(step.push) != 0.0:
        low, high = _chunk_range(step, {})
        if _beyond(low, high):
            return _found(step, True, step.push, (low, high), key)
    return None


def _ends(step: Step, whole: Expr) -> tuple[float, float]:
    """The ends of a factor; where interval arithmetic may be too wide, only as far as examples reach."""
    bound = step.bound(whole)
    found = range_of(bound, step.known)
    if not _beyond(found.low, found.high):
        return found.low, found.high
    tried = [value for (value,) in _samples([bound], step.known) if not math.isnan(value)]
    low, high = min(tried, default=1.0), max(tried, default=1.0)
    return _agreed(found.low, low), _agreed(found.high, high)


def _agreed(end: float, tried: float) -> float:
    """The end of a range if an example comes near it."""
    if math.isinf(end):
        return end if abs(tried) > 1e3 else tried
    return end if abs(end - tried) <= 1e-3 * (1.0 + abs(end)) else tried


def _beyond(low: float, high: float) -> bool:
    return low < -1.0 - SLACK or high > 1.0 + SLACK


def _with_momentum(step: Step, key: str) -> Blowup | None:
    """Momentum: the push is remembered, `1 / (1 - beta)` times at most."""
    low, high = _chunk_range(step, {})
    return _found(step, True, step.push, (low, high), key) if _beyond(low, high) else None


# --- what a chunk of one repeated key does -----------------------------------------------------------


def _chunk_range(step: Step, known: Mapping[Expr, Interval]) -> tuple[float, float]:
    """Smallest and largest factor over a grid of the gates' values; infinite if the push is."""
    wanted = [step.bound(e) for e in (step.stay, step.push, step.momentum or number(0.0))]
    pushed = range_of(wanted[1], {**step.known, **known})
    if math.isinf(pushed.high) or math.isinf(pushed.low):
        return -math.inf, 1.0
    found = [1.0]
    for stay, push, beta in _samples(wanted, {**step.known, **known}):
        factor = _over_chunk(stay, push, step.chunk, beta if step.momentum is not None else None)
        found.append(factor if not math.isnan(factor) else 1.0)
    return min(found), max(found)


def _over_chunk(stay: float, push: float, chunk: int, beta: float | None) -> float:
    """The factor of the state after `chunk` tokens with one key and a gradient held at the start.

    >>> _over_chunk(1.0, 0.5, 4, None)
    -1.0
    """
    if beta is not None:
        return _heavy_ball(stay, push, chunk, beta)
    power = _power(stay, chunk)
    series = float(chunk) if abs(1.0 - stay) < 1e-12 else (1.0 - power) / (1.0 - stay)
    return power - push * series


def _power(base: float, exponent: int) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf if base > 0.0 or exponent % 2 == 0 else -math.inf


def _heavy_ball(stay: float, push: float, chunk: int, beta: float) -> float:
    """`m' = beta m - push W_0`, `W' = stay W + m'`; for one token, whether the two together stay bounded."""
    if chunk == 1:
        # Jury's conditions of z^2 - (stay + beta - push) z + stay beta; beyond them the size grows.
        limit = (1.0 + stay) * (1.0 + beta)
        return 1.0 - 2.0 * push / limit if limit > 0.0 else 1.0
    state, speed = 1.0, 0.0
    for _ in range(min(chunk, 4096)):
        speed = beta * speed - push
        state = stay * state + speed
    return state


def _samples(wanted: list[Expr], known: Mapping[Expr, Interval]) -> Iterator[list[float]]:
    """Values of some expressions on a grid over the ranges of what they are made of."""
    unknowns = Unknowns(known)
    for expr in wanted:
        unknowns.bare(expr)
    boxes = list(unknowns.found.values())
    if len(boxes) > _MAX_SAMPLED:
        return
    axes = [[_point(box, i / (_POINTS - 1)) for i in range(_POINTS)] for box in boxes]
    for point in product(*axes):
        at = dict(zip(unknowns.found, point, strict=True))
        yield [unknowns.value(e, at) for e in wanted]


def _point(box: Interval, part: float) -> float:
    """The point at `part` of a range; open and infinite ends are replaced by what is near."""
    low, high = max(box.low, -_FAR), min(box.high, _FAR)
    if math.isinf(box.high) and low >= 0.0:
        return low + math.pow(10.0, 12.0 * part - 6.0)
    margin = 1e-9 * (high - low)
    return min(max(low + part * (high - low), low + margin), high - margin) if high > low else low


# --- what to say -------------------------------------------------------------------------------------


def _found(step: Step, stale: bool, shown: Expr, ends: tuple[float, float], key: str) -> Blowup:
    letter = key if step.fed_by_key else "z"
    if step.length == 1.0 and not stale:
        shown = substitute(shown, {step.square: number(1.0)})
    rates = [s for s in step.rates if s in _symbols(build("add", step.pull, step.push))]
    rate = rates[0].name if len(rates) == 1 else step.fixed[0][0] if step.fixed and not rates else ""
    cause, limit = _cause(step, ends), ""
    if cause == "rate" and rate:
        limit = _stale_limit(step, rates) if stale else _limit(step, rates)
    return Blowup(step, stale, words(_short(shown), letter), *ends, rate, limit, cause)


def _cause(step: Step, ends: tuple[float, float]) -> str:
    """Which number is to blame: `gate`, `sign` of the rate, length of the `key`, or the `rate`."""
    keep = range_of(step.bound(step.keep), step.known)
    if keep.high > 1.0 + SLACK or keep.low < -1.0 - SLACK:
        return "gate"
    taken = build("add", step.pull, step.push)
    if range_of(step.bound(taken), step.known).low < -SLACK:
        return "sign"
    at_one = range_of(substitute(step.bound(taken), {step.square: number(1.0)}), step.known)
    if math.isinf(step.length) and math.isinf(range_of(step.bound(taken), step.known).high):
        return "key" if math.isfinite(at_one.high) else "key and rate"
    return "rate"


def _limit(step: Step, rates: list[Expr]) -> str:
    """`1 + alpha`, or a number: what the rate must stay below."""
    taken = build("add", step.pull, step.push)
    keep = scalar_value(step.keep)
    if rates:
        share = range_of(step.bound(substitute(taken, {rates[0]: number(1.0)})), step.known).high
    else:
        share = range_of(step.bound(taken), step.known).high / step.fixed[0][1]
    if not math.isfinite(share) or share <= 0.0:
        return ""
    # The small number in the denominator of a normalised rate is no reason for an odd limit.
    share = 1.0 if 0.9 < share <= 1.0 else share
    if keep is None and step.keep.op == "symbol":
        return f"1 + {step.keep.name}" if share == 1.0 else f"(1 + {step.keep.name}) / {share:g}"
    low = keep if keep is not None else range_of(step.bound(step.keep), step.known).low
    return f"{(1.0 + low) / share:.3g}"


def _stale_limit(step: Step, rates: list[Expr]) -> str:
    """The largest rate for which a chunk of one key stays within one, by bisection."""

    def good(rate: float) -> bool:
        if rates:
            free = symbol(f"{rates[0].name} at most", role="gate")
            gates = {**step.gates, rates[0]: free}
            trial = Step(**{**vars(step), "gates": gates})
            return not _beyond(*_chunk_range(trial, {free: Interval(0.0, rate)}))
        part = rate / step.fixed[0][1]
        scaled = {"pull": build("mul", part, step.pull), "push": build("mul", part, step.push)}
        return not _beyond(*_chunk_range(Step(**{**vars(step), **scaled}), {}))

    low, high = 1e-9, 1e3
    if not good(low):
        return ""
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if good(middle) else (low, middle)
    return _rounded_down(low * (1.0 + 1e-4))


def _rounded_down(value: float) -> str:
    """Three digits, never above `value`.

    >>> _rounded_down(0.12567), _rounded_down(1999.0)
    ('0.125', '1990')
    """
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{round(math.floor(value / unit + 1e-9) * unit, 12):g}"


def _short(expr: Expr) -> Expr:
    """`alpha - 2 eta` for `alpha - eta - eta`."""
    if expr.op == "sub" and expr.args[0].op == "sub" and expr.args[0].args[1] is expr.args[1]:
        return build("sub", expr.args[0].args[0], build("mul", 2.0, expr.args[1]))
    return expr


def words(expr: Expr, key: str) -> str:
    """An expression over gates as a person writes it."""
    plain = Style(**{**vars(TEXT), "symbol": lambda name, _: name})
    return written(expr, {"x": key, "key": key}, plain, 0)


def _symbols(expr: Expr) -> set[Expr]:
    return {expr} if expr.op == "symbol" else set().union(*(_symbols(a) for a in expr.args))
