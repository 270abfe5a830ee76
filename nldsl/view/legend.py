"""The legend: every transfer and every kind of box, laid out in lines that fit the canvas."""

from __future__ import annotations

from nldsl.graph import LevelGraph
from nldsl.view.geometry import KINDS, Entry, Rect
from nldsl.view.measure import width

SIZE = 11.5
_LINE, _SAMPLE, _SPACE = 22.0, 30.0, 22.0

MEANING = {
    "condition": "condition: feeds the forward pass",
    "non-parametric": "non-parametric: attention's output feeds",
    "backpropagate": "backpropagate: one gradient flow, two clocks",
    "initialise": "initialise: learns where it starts",
    "generate": "generate: makes keys, values, rates, gradients, updates",
}

BOXES = {
    "memory": "memory, written by its own objective",
    "task memory": "memory, written by the task",
    "attention": "attention cache",
    "slow parameters": "slow parameters",
    "optimiser memory": "optimiser memory",
}


def legend(graph: LevelGraph, x: float, y: float, right: float) -> tuple[Entry, ...]:
    """All five transfers, then the kinds of boxes that occur, from `x`, `y` on in lines up to `right`."""
    present = {p.kind for p in graph.problems}
    lines = [("transfer", kind, MEANING[kind]) for kind in KINDS]
    kinds = [("box", kind, text) for kind, text in BOXES.items() if kind in present]
    entries: list[Entry] = []
    for group in (lines, kinds):
        at = x
        for what, sample, text in group:
            wide = _SAMPLE + width(text, SIZE) + 6
            if at > x and at + wide > right:
                at, y = x, y + _LINE
            entries.append(
                Entry("transfer" if what == "transfer" else "box", sample, text, Rect(at, y, wide, _LINE))
            )
            at += wide + _SPACE
        y += _LINE
    return tuple(entries)
