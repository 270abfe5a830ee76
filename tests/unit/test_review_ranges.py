"""The review on rates and gates whose range takes some thought."""

from __future__ import annotations

import math
import sys

import pytest

from nldsl.calculus import Expr, build, symbol
from nldsl.calculus.ranges import Interval, range_of
from nldsl.review import check
from tests.unit.test_review import codes, layer


def test_a_rate_that_is_a_number_above_what_the_gate_admits() -> None:
    (found,) = check(layer("by gd(lr = 2) retain alpha", alpha="tanh(linear(x, 2))"))
    assert found.code == "NL0430" and "between -3 and 1" in found.message
    assert found.help == "keep `lr` below `1 + alpha` for every value of the gate"


RANGES: dict[str, tuple[Expr, Interval]] = {
    "sum of squares": (build("sum", build("pow", symbol("v", (4,), "vector"), 2.0)), Interval(0.0)),
    "square root": (build("sqrt", symbol("a")), Interval(0.0)),
    "error function": (build("erf", symbol("a")), Interval(-1.0, 1.0)),
    "comparison": (build("lt", symbol("a"), symbol("b")), Interval(0.0, 1.0)),
    "a power too large for a number": (
        build("pow", build("add", 1e3, build("sigmoid", symbol("a"))), 200.0),
        Interval(sys.float_info.max, math.inf, True, True),
    ),
    "a small base": (build("pow", 1e-3, symbol("a")), Interval(0.0, math.inf, True, True)),
    "a large base": (build("pow", 1e3, symbol("a")), Interval(0.0, math.inf, True, True)),
    "a high power": (
        build("pow", 2.0, build("mul", 400.0, build("sigmoid", symbol("a")))),
        Interval(1.0, 2.0**400, True, True),
    ),
}


@pytest.mark.parametrize("case", RANGES)
def test_ranges_of_functions_of_any_number(case: str) -> None:
    expr, wanted = RANGES[case]
    assert range_of(expr) == wanted


def test_a_rate_that_may_leave_the_range_of_numbers_is_any_number_above_zero() -> None:
    (found,) = check(layer("by gd(lr = eta) retain 0.5", eta="0.001 ** linear(x, 2)"))
    assert found.code == "NL0430"


def test_a_gate_made_of_the_position_never_blows_up() -> None:
    write = "by gd(lr = 0.5) retain alpha"
    assert not codes(layer(write, alpha="1 - 1 / (2 + position())"))
    assert codes(layer(write, alpha="1 + 1 / (2 + position())")) == ["NL0430"]
