"""Which numbers an argument of an optimizer's rule may be."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """From `low`, itself allowed, to below `high`; `why` says what the argument is."""

    low: float = -math.inf
    high: float = math.inf
    why: str = ""

    def refusal(self, name: str, value: object) -> str:
        """What is wrong with `value` as the argument `name`; empty if nothing is.

        Example:
            >>> RATE.refusal("lr", -1.0)
            '`lr` is a rate: from 0, found -1'
            >>> SHARE.refusal("beta1", 1.5), Bounds().refusal("a", -3)
            ('`beta1` is the share of an average: from 0 to below 1, found 1.5', '')
            >>> RATE.refusal("lr", float("nan"))
            '`lr` is a finite number, found nan'
            >>> RATE.refusal("lr", True)
            '`lr` is a finite number, found True'
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            return f"`{name}` is a finite number, found {value!r}"
        if self.low <= value < self.high:
            return ""
        upper = "" if math.isinf(self.high) else f" to below {self.high:g}"
        return f"`{name}` is {self.why}: from {self.low:g}{upper}, found {value:g}"


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


ANY = Bounds()
RATE = Bounds(0.0, why="a rate")
SHARE = Bounds(0.0, 1.0, why="the share of an average")
NAMED = {
    "lr": RATE,
    "eps": Bounds(0.0, why="added to what is divided by"),
    "decay": Bounds(0.0, why="a rate of decay"),
    "momentum": Bounds(0.0, why="what is left of a momentum"),
}
"""Arguments whose name says what they are, as in `torch.optim`."""
