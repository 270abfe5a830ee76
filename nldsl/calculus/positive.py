"""Which expressions are certainly positive, so that a gate may be carried as its logarithm."""

from __future__ import annotations

from nldsl.calculus.expression import Expr

_ALWAYS = frozenset({"exp", "sigmoid", "softplus", "softmax"})
_KEEPS = frozenset({"sum", "mean", "split", "merge", "expand_last", "detach", "sqrt", "parts", "concat"})


def positive(expr: Expr) -> bool:
    """Whether `expr` is above zero for every value of its symbols; `False` also means unknown.

    In exact arithmetic: an `exp` may underflow to zero, which its logarithm does not see.

    Example:
        >>> from nldsl.calculus.expression import node, symbol
        >>> positive(node("sigmoid", (symbol("a"),), {}))
        True
    """
    if expr.value is not None:
        return expr.value > 0.0
    args = expr.args
    if expr.op in _ALWAYS:
        return True
    if expr.op in _KEEPS:
        values = args[:1] if expr.op == "expand_last" else args
        return all(positive(a) for a in values)
    match expr.op:
        case "mul" | "div" | "minimum":
            return positive(args[0]) and positive(args[1])
        case "add":
            return (positive(args[0]) and not_negative(args[1])) or (
                not_negative(args[0]) and positive(args[1])
            )
        case "maximum":
            return positive(args[0]) or positive(args[1])
        case "sub":
            return args[0].value == 1.0 and args[1].op == "sigmoid"
        case "pow":
            return positive(args[0])
        case "where":
            return positive(args[1]) and positive(args[2])
    return False


def not_negative(expr: Expr) -> bool:
    """Whether `expr` is at least zero for every value of its symbols; `False` also means unknown."""
    if positive(expr) or expr.value == 0.0 or expr.op in ("abs", "relu"):
        return True
    args = expr.args
    if expr.op == "pow":
        power = args[1].value
        return power is not None and power > 0 and power % 2 == 0
    if expr.op == "dot":
        return args[0] is args[1]
    if expr.op == "expand_last":
        return not_negative(args[0])
    if expr.op in _KEEPS or expr.op in ("add", "mul"):
        return all(not_negative(a) for a in args)
    return False
