"""Straight-line functions as the formula a reader would write: `0.5 * sum((pred - target) ** 2)`."""

from __future__ import annotations

from nldsl.spec.program import Apply, Function, Rule, option

_INFIX = {
    "add": ("+", 1),
    "sub": ("-", 1),
    "mul": ("*", 2),
    "div": ("/", 2),
    "matmul": ("@", 2),
    "pow": ("**", 4),
}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_ATOM = 9
_LONGEST = 4_000


def formula(function: Function) -> str:
    """The outputs of `function`, with every intermediate value put in its place.

    Values used more than once are written out each time; a formula that would be longer than a
    screen is cut with an ellipsis.
    """
    return ", ".join(_formulas(function))


def rule_formula(rule: Rule, short: bool = False) -> str:
    """What one application of `rule` does: `W = W - lr * g; m = ...`, arguments by name.

    `short`: without sums and products in which a 0 or a 1 says nothing, as default numbers of a rule are.
    """
    names = ("W", *(slot.name for slot in rule.slots))
    outputs = _formulas(rule.function, short)
    return "; ".join(f"{name} = {text}" for name, text in zip(names, outputs, strict=False))


def number(value: object) -> str:
    """A number as one writes it by hand.

    Example:
        >>> number(0.50), number(1e-08), number(3.0)
        ('0.5', '1e-8', '3')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _formulas(function: Function, short: bool = False) -> list[str]:
    shown: dict[str, tuple[str, int]] = {}
    for value in (*function.inputs, *function.weights):
        shown[value.name] = (value.name, _ATOM)
    for statement in function.body:
        shown[statement.out.name] = _cut(_expression(statement, shown, short))
    return [shown.get(v.name, (v.name, _ATOM))[0] for v in function.outputs]


def _expression(statement: Apply, shown: dict[str, tuple[str, int]], short: bool) -> tuple[str, int]:
    args = [shown.get(a.name, (a.name, _ATOM)) for a in statement.args]
    if statement.op == "constant":
        value = option(statement.options, "value")
        return number(value), 3 if isinstance(value, int | float) and value < 0 else _ATOM
    if statement.op in _INFIX and len(args) == 2:
        left = _neutral(statement.op, args[0], args[1]) if short else None
        return left or _infix(statement.op, args[0], args[1])
    if statement.op in _COMPARE and len(args) == 2:
        return f"{_wrap(args[0], 1)} {_COMPARE[statement.op]} {_wrap(args[1], 1)}", 0
    if statement.op == "neg":
        return f"-{_wrap(args[0], 3)}", 3
    if statement.op == "transpose":
        return f"{_wrap(args[0], _ATOM)}^T", 5
    return f"{statement.op}({', '.join(text for text, _ in args)})", _ATOM


def _infix(op: str, left: tuple[str, int], right: tuple[str, int]) -> tuple[str, int]:
    sign, strength = _INFIX[op]
    first = _wrap(left, strength + 1 if op == "pow" else strength)
    return f"{first} {sign} {_wrap(right, strength if op == 'add' else strength + 1)}", strength


def _neutral(op: str, left: tuple[str, int], right: tuple[str, int]) -> tuple[str, int] | None:
    """What is left beside a 0 or a 1; `None` where that says something."""
    first, second = left[0], right[0]
    zero = ("0", _ATOM)
    if op == "mul":
        return zero if "0" in (first, second) else right if first == "1" else left if second == "1" else None
    if op == "add":
        return right if first == "0" else left if second == "0" else None
    if op == "sub":
        return left if second == "0" else (f"-{_wrap(right, 3)}", 3) if first == "0" else None
    if op == "div":
        return left if second == "1" else zero if first == "0" else None
    return None


def _wrap(shown: tuple[str, int], needed: int) -> str:
    text, strength = shown
    return text if strength >= needed else f"({text})"


def _cut(shown: tuple[str, int]) -> tuple[str, int]:
    text, strength = shown
    return (text, strength) if len(text) <= _LONGEST else (text[:_LONGEST] + " ...", _ATOM)
