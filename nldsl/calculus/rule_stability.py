"""How steep a loss a linear rule stands: the eigenvalues of one step on a quadratic."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import numpy as np

from nldsl.calculus.evaluate import evaluate
from nldsl.calculus.expression import Expr, symbols
from nldsl.calculus.rule_states import StatesForm

SLACK = 1e-7
"""Beyond one by less than this is rounding: a double eigenvalue is known to half the digits."""


def steepest(form: StatesForm, numbers: Mapping[str, float]) -> float | str:
    """The largest curvature h for which steps on `g = h W` leave everything bounded, or why it is not told.

    `Z' = (A - h b e^T) Z` for the weight and what the rule remembers: all eigenvalues lie in the unit circle
    for every curvature from 0 to h.  `numbers` are the rule's arguments by name; an input `x` has length one,
    what the rule erases lies along it.  `inf` if every loss will do, 0 if it grows on a flat one already.

    Example:
        >>> from nldsl.calculus.rule_states import rule_states
        >>> from nldsl.spec.open_rule import open_rule
        >>> momentum = open_rule("momentum", lr=0.1).outer.at((3, 2), False)
        >>> round(steepest(rule_states(momentum, (3, 2)), {"lr": 0.1, "beta": 0.5}), 4)
        30.0
    """
    missing = {s.name for e in form.numbers() for s in symbols(e)} - {*numbers, "x"}
    if missing:
        what = "from step to step" if missing == {"step"} else f"with {', '.join(sorted(missing))}"
        return f"the numbers of a step change {what}"
    rows = np.array([[_value(e, numbers) for e in row] for row in form.rows])
    rates = np.array([_value(e, numbers) for e in form.rates])
    along = rows.copy()
    for of, into in form.erases:
        along[:, of] -= [_value(e, numbers) for e in into]
    return _first_beyond(along, rates) if _bounded(rows) else 0.0


def _value(expr: Expr, numbers: Mapping[str, float]) -> float:
    """A number of the rule, where an input is a vector of length one."""
    known = {s: _unit(s) if s.name == "x" else numbers[s.name] for s in symbols(expr)}
    return float(evaluate(expr, known))


def _unit(x: Expr) -> np.ndarray:
    return np.array([1.0, *[0.0] * (x.shape[0] - 1)])


def _bounded(step: np.ndarray) -> bool:
    return bool(np.abs(np.linalg.eigvals(step)).max() <= 1.0 + SLACK)


def _first_beyond(rows: np.ndarray, rates: np.ndarray) -> float:
    """Where the first eigenvalue leaves the unit circle, by bisection between points of a grid."""

    def bounded(curvature: float) -> bool:
        step = rows.copy()
        step[:, 0] -= curvature * rates
        return _bounded(step)

    grid = np.geomspace(1e-9, 1e12, 2101)
    beyond = next((i for i, h in enumerate(grid) if not bounded(float(h))), len(grid))
    if beyond in (0, len(grid)):
        return 0.0 if beyond == 0 else inf
    low, high = float(grid[beyond - 1]), float(grid[beyond])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if bounded(middle) else (low, middle)
    return low
