"""Schedules: arguments of a training rule that change with the step.

`lr = cosine(2e-2, warmup = 100)` rises over 100 steps to 2e-2 and falls along half a cosine to `floor`
times that.  A schedule is a pure function of the step and of the progress of the run, so a resumed
run goes on exactly where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nldsl.catalog.primitive import ContractError, Option
from nldsl.catalog.values import Static

_VALUE = Option("value", "REQUIRED", "the value at its highest")
_WARMUP = Option("warmup", 0, "steps of linear rise from zero", unit="steps", minimum=0)
_FLOOR = Option("floor", 0.0, "what is left at the end, as a share of `value`", minimum=0, maximum=1)
_STEPS = Option("steps", 0, "where the fall ends; 0 means the end of the run", unit="steps", minimum=0)
_DECAY = Option("decay", 0.1, "share of the way behind the rise that is fall", minimum=1e-6, maximum=1)
_FALLS = (_VALUE, _WARMUP, _FLOOR, _STEPS)


@dataclass(frozen=True)
class Schedule:
    """A schedule of the step: its options in positional order, and the shape of its fall."""

    name: str
    doc: str
    options: tuple[Option, ...]
    shape: Literal["constant", "linear", "cosine", "wsd"]

    def value(self, step: int, progress: float, options: Mapping[str, Static]) -> float:
        """The value at `step` (0 is the first), when `progress` in [0, 1] of the run is done.

        Example:
            >>> SCHEDULES["linear"].value(5, 0.5, {"value": 2.0})
            1.0
        """
        given = {o.name: o.default for o in self.options} | dict(options)
        peak, warmup = _number(given["value"]), int(_number(given.get("warmup", 0)))
        if step < warmup:
            return peak * (step + 1) / warmup
        if self.shape == "constant":
            return peak
        length = int(_number(given["steps"]))
        done = min(1.0, max(0.0, (step - warmup) / max(1, length - warmup) if length else progress))
        floor = _number(given["floor"])
        if self.shape == "cosine":
            left = 0.5 * (1 + math.cos(math.pi * done))
        else:
            share = _number(given["decay"]) if self.shape == "wsd" else 1.0
            left = min(1.0, (1 - done) / share)
        return peak * (floor + (1 - floor) * left)


def _number(value: Static) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ContractError(f"a schedule takes numbers, found `{value}`")
    return float(value)


SCHEDULES: dict[str, Schedule] = {
    s.name: s
    for s in (
        Schedule("constant", "the same value at every step", (_VALUE,), "constant"),
        Schedule("warmup", "a linear rise, then constant", (_VALUE, _WARMUP), "constant"),
        Schedule("linear", "a rise, then a straight fall", _FALLS, "linear"),
        Schedule("wsd", "a rise, then constant, then a straight fall", (*_FALLS, _DECAY), "wsd"),
        Schedule("cosine", "a rise, then half a cosine", _FALLS, "cosine"),
    )
}
"""Every schedule by name."""
