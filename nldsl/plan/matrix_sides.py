"""Along which side of a matrix everything is written, and on which side its gates act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nldsl.calculus.pieces import NotRankOneError, Side, TermForm
from nldsl.spec.program import Update, Write

Forms = Mapping[int, tuple[TermForm, ...]]
"""The terms of every write, by its identity."""


def axis_of(step: Write | Update) -> str | None:
    """The axis of the gate of a step, if it has one."""
    if isinstance(step, Update):
        return step.axis
    return step.retain_axis if step.retain is not None else None


def side_of(changes: Sequence[Write | Update], forms: Forms) -> tuple[Side, bool]:
    """The side along which all is written, and whether the gates leave a scan only.

    Gates per channel of the other side scale rows that are written along common keys: all rows share one
    triangular system if they are positive and an erase looks at rows as they are when it writes.

    Errors: `NotRankOneError`.
    """
    sides = {f.side for group in forms.values() for f in group if f.side is not None}
    axes = {axis_of(s) for s in changes}
    if len(sides) > 1:
        raise NotRankOneError("some terms erase along the key and some along the value")
    if "element" in axes:
        return (next(iter(sides)) if sides else "key"), True
    both = {"key", "value"} <= axes
    if not sides and not both:
        return ("value" if "value" in axes else "key"), False
    if not sides:
        found = [side for side in ("key", "value") if not _against(changes, forms, side)]
        return ("value", False) if found == ["value"] else ("key", not found)
    side: Side = "key" if "key" in sides else "value"
    problem = _against(changes, forms, side)
    if problem and not both:
        raise NotRankOneError(problem)
    return side, bool(problem)


def _against(changes: Sequence[Write | Update], forms: Forms, side: str) -> str:
    """Why gates across `side` give every row a triangular system of its own; empty if they do not."""
    across, row = ("value", "row") if side == "key" else ("key", "column")
    gated = [s for s in changes if axis_of(s) == across]
    own = f"gives every {row} of the memory a triangular system of its own"
    for step in gated:
        group = forms.get(id(step), ())
        if any(p.seen is not None for f in group for p in f.pieces):
            return f"retention per {across} channel in a write that erases {own}; `M *= a` above it does not"
        log = step.retain_log if isinstance(step, Write) else step.value_log
        if log is None or any(f.keep.value != 1.0 for f in group):
            return f"a gate per {across} channel that may not be positive {own}: the {side}s erase"
    every = [f for group in forms.values() for f in group]
    if gated and any(f.momentum is not None or f.mixed is not None for f in every):
        return f"a gate per {across} channel of a memory whose rule remembers {own}"
    return ""
