"""Element-wise operations of torch as expressions of C."""

from __future__ import annotations

import torch

aten = torch.ops.aten

UNARY = {
    aten.neg: "-{0}",
    aten.exp: "nl_exp({0})",
    aten.expm1: "nl_expm1({0})",
    aten.log: "nl_log({0})",
    aten.log1p: "nl_log1p({0})",
    aten.sigmoid: "nl_sigmoid({0})",
    aten.tanh: "nl_tanh({0})",
    aten.erf: "nl_erf({0})",
    aten.sin: "nl_sin({0})",
    aten.cos: "nl_cos({0})",
    aten.sqrt: "nl_sqrt({0})",
    aten.rsqrt: "nl_rsqrt({0})",
    aten.reciprocal: "1 / {0}",
    aten.relu: "({0} > 0 ? {0} : {0} != {0} ? {0} : 0)",
    aten.abs: "nl_abs({0})",
    aten.sign: "({0} > 0) - ({0} < 0)",
    aten.sgn: "({0} > 0) - ({0} < 0)",
    aten.logical_not: "!{0}",
    aten.bitwise_not: "!{0}",
}
"""Functions of one number."""

BINARY = {
    aten.mul: "{0} * {1}",
    aten.div: "{0} / {1}",
    aten.maximum: "({0} > {1} || {0} != {0} ? {0} : {1})",
    aten.minimum: "({0} < {1} || {0} != {0} ? {0} : {1})",
    # Equal ones apart: infinities have no difference.
    aten.logaddexp: "({0} == {1} ? {0} + (real)0.69314718055994531 : "
    "({0} > {1} ? {0} : {1}) + nl_log1p(nl_exp(-nl_abs({0} - {1}))))",
    aten.gt: "{0} > {1}",
    aten.ge: "{0} >= {1}",
    aten.lt: "{0} < {1}",
    aten.le: "{0} <= {1}",
    aten.eq: "{0} == {1}",
    aten.ne: "{0} != {1}",
    aten.logical_and: "{0} && {1}",
    aten.logical_or: "{0} || {1}",
    aten.bitwise_and: "{0} & {1}",
    aten.bitwise_or: "{0} | {1}",
    aten.bitwise_xor: "{0} ^ {1}",
}
"""Functions of two numbers, element by element."""

DEAR = frozenset(
    {aten.exp, aten.expm1, aten.log, aten.log1p, aten.sigmoid, aten.silu, aten.tanh, aten.erf, aten.gelu}
    | {aten.sin, aten.cos, aten.pow, aten.logaddexp}
)
"""What takes many operations of the processor."""


def power(exponent: float) -> str:
    """`{0}` to a known power.

    >>> power(2.0), power(0.5)
    ('{0} * {0}', 'nl_sqrt({0})')
    """
    known = {
        0.5: "nl_sqrt({0})",
        1.0: "{0}",
        2.0: "{0} * {0}",
        3.0: "{0} * {0} * {0}",
        -0.5: "nl_rsqrt({0})",
        -1.0: "1 / {0}",
        -2.0: "1 / ({0} * {0})",
    }
    return known.get(float(exponent), "nl_pow({0}, {1})")


def number(value: float, kind: str) -> str:
    """A literal of C.

    >>> number(0.5, "float"), number(float("-inf"), "double"), number(True, "bool")
    ('0x1.0000000000000p-1f', '(-INFINITY)', '1')
    """
    if kind == "bool":
        return str(int(value))
    if kind == "long":
        return f"{int(value)}L"
    value = float(value)
    if value != value:
        return "NAN"
    if value in (float("inf"), float("-inf")):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = value.hex() + ("f" if kind == "float" else "")
    return f"({text})" if value < 0 else text
