"""The numbers of a rule at one step: what depends on the step and the arguments alone."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.rule_kernel import Kernel


def _relu(x: float) -> float:
    return x if x != x or x > 0 else 0.0


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


TORCH: dict[str, Callable[..., float]] = {
    "abs": abs,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "tanh": math.tanh,
    "sin": math.sin,
    "cos": math.cos,
    "erf": math.erf,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "sign": lambda x: x if x != x else float((x > 0) - (x < 0)),
}
"""Functions of torch on one number."""
OWN: dict[str, Callable[..., float]] = {
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "where": lambda condition, a, b: a if condition != 0 else b,
    "maximum": lambda a, b: a if a != a or a > b else b,
    "minimum": lambda a, b: a if a != a or a < b else b,
    "multiple_of": lambda x, *, of: float(x % of == 0),
    "unbias": lambda m, beta, step: m / (1 - beta**step),
}
"""Those of `nldsl.runtime.ops`."""
PLAIN: dict[str, Any] = {"torch": SimpleNamespace(**TORCH), **OWN}


class Numbers:
    """The numbers of one kernel at one step, in the forms they are asked for."""

    def __init__(self, kernel: Kernel, given: Sequence[float]) -> None:
        self.kernel, self.given = kernel, given

    def values(self) -> tuple[Tensor, ...]:
        """As tensors in double precision."""
        return self.kernel.numbers(*torch.tensor(self.given, dtype=torch.float64).unbind())

    def floats(self) -> list[float]:
        """As they are, in double precision."""
        found = self._by_python()
        return [float(value) for value in self.values()] if found is None else found

    def plain(self) -> ctypes.Array[ctypes.c_double]:
        """As an array of doubles."""
        found = self.floats()
        return (ctypes.c_double * max(len(found), 1))(*found)

    def _by_python(self) -> list[float] | None:
        """The same operations by Python, in a tenth of the time.

        Nothing where a function is not known here, or torch has another answer, as for 1 / 0.
        """
        quick = _of_floats(self.kernel.numbers)
        if quick is None:
            return None
        try:
            return [float(value) for value in quick(*self.given)]
        except (ArithmeticError, TypeError, ValueError):
            return None

    def cast(self, like: Tensor) -> list[Tensor]:
        """As tensors on the device of a weight, at least in single precision."""
        kind = like.dtype if like.dtype == torch.float64 else torch.float32
        return [n.to(like.device, kind) for n in self.values()]


@cache
def _of_floats(numbers: FunctionType) -> Callable[..., tuple[float, ...]] | None:
    """The function of a kernel with operations of Python, where it has them all."""
    code = numbers.__code__
    known = all(name in PLAIN or name in TORCH for name in code.co_names)
    return FunctionType(code, PLAIN) if known else None
