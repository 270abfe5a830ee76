"""Arithmetic on what is known when the program is compiled: numbers, booleans, strings, lists."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nldsl.source import Span
from nldsl.spec.items import POISON, Item, Poison, describe, is_number, is_static
from nldsl.spec.session import Session

MAX_MAGNITUDE = 10**15
"""Whole numbers stay below this: no clock, size or count is larger."""
MAX_LIST = 10_000
"""Elements of a static list."""
MAX_EXPONENT = 1024
"""Largest exponent of a static power; keeps `10 ** 10 ** 10` from being computed."""

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "**": lambda a, b: _power(a, b),
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "abs": abs,
    "minimum": min,
    "maximum": max,
    "where": lambda condition, a, b: a if condition else b,
}
"""Primitives that stay static when all their arguments are."""


def _power(base: int | float, exponent: int | float) -> Any:
    if abs(exponent) > MAX_EXPONENT and abs(base) not in (0, 1):
        raise OverflowError
    return base**exponent


def fold(session: Session, op: str, left: Item, right: Item, span: Span) -> Item:
    """`left op right` of two static items.

    Errors: NL0404 for operands of the wrong kind, NL0406 for a division by zero or a number that
    grows out of bounds.
    """
    if op in ("==", "!="):
        return (left == right) is (op == "==")
    if op in ("and", "or"):
        return _logic(session, op, left, right, span)
    if op == "+" and isinstance(left, tuple) and isinstance(right, tuple):
        if len(left) + len(right) <= MAX_LIST:
            return left + right
        return session.report("NL0406", "this list is too long", span, f"at most {MAX_LIST} elements")
    if not is_number(left) or not is_number(right):
        wrong = left if not is_number(left) else right
        return session.report(
            "NL0404", f"`{op}` needs numbers, found {describe(wrong)}", span, "not a number"
        )
    if op in _ORDER:
        return _ORDER[op](left, right)
    if op == "@":
        return session.report("NL0404", "`@` needs a matrix, found two numbers", span, "use `*`")
    return checked(session, lambda: _ARITHMETIC[op](left, right), span)


def checked(session: Session, compute: Callable[[], Any], span: Span) -> Item:
    """The number `compute` gives, or a report if it has none."""
    try:
        result = compute()
    except ZeroDivisionError:
        return session.report("NL0406", "division by zero", span, "the divisor is 0 here")
    except (OverflowError, ValueError, TypeError):
        return session.report("NL0406", "this number cannot be computed", span, "out of bounds")
    large = isinstance(result, int) and abs(result) > MAX_MAGNITUDE
    if large or isinstance(result, complex) or (isinstance(result, float) and not math.isfinite(result)):
        return session.report(
            "NL0406", "this number is out of bounds", span, f"expected less than {MAX_MAGNITUDE:.0e}"
        )
    return result if isinstance(result, int | float) else POISON


def _logic(session: Session, op: str, left: Item, right: Item, span: Span) -> Item:
    for side in (left, right):
        if not isinstance(side, bool):
            return session.report(
                "NL0404", f"`{op}` needs `true` or `false`, found {describe(side)}", span, "not a truth value"
            )
    return bool(left and right) if op == "and" else bool(left or right)


def whole_number(
    session: Session, item: Item, what: str, span: Span, *, least: int = 1, code: str = "NL0405"
) -> int | Poison:
    """`item` as a whole number of at least `least`.

    Errors: NL0403 if it is only known at run time; `code` if it is no whole number or too small.
    """
    if item is POISON:
        return POISON
    if not is_static(item):
        return session.report(
            "NL0403",
            f"{what} must be known when the program is compiled, found {describe(item)}",
            span,
            "computed from tokens",
            help="use a parameter with a number, or `dim(x)`",
        )
    if not isinstance(item, int) or isinstance(item, bool):
        return session.report(
            code, f"{what} must be a whole number, found {describe(item)}", span, "not a whole number"
        )
    if item < least:
        return session.report(code, f"{what} must be at least {least}, found {item}", span, "too small")
    return item
