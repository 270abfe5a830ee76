"""Where columns, frames and boxes stand from left to right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.graph import LevelGraph, Zone
from nldsl.view.arrange import Row
from nldsl.view.boxes import box_width
from nldsl.view.geometry import Net
from nldsl.view.measure import width

PORT_W, PORT_H = 124.0, 26.0
LABEL_W = 226.0
"""Room for the text of the levels, at the left."""

_PER_NET = 6.0
_PAD = 26.0
_FRAME_PAD = 20.0
_HEADER_SIZE = 13.0


@dataclass(frozen=True)
class Across:
    """The horizontal half of a layout: x ranges of columns and frames, left edges of boxes."""

    columns: tuple[tuple[float, float], ...]
    frames: tuple[tuple[str, float, float], ...]
    left: dict[str, float]
    width: dict[str, float]
    start: float
    end: float

    def center(self, id: str) -> float:
        """The middle of a box."""
        return self.left[id] + self.width[id] / 2

    @property
    def borders(self) -> tuple[float, ...]:
        """The x of every vertical line of a frame; wires keep off them."""
        return tuple(x for _, a, b in self.frames for x in (a, b))


def box_widths(graph: LevelGraph, nets: Sequence[Net]) -> dict[str, float]:
    """How wide every box is: wider where so many nets end that their lines would touch."""
    ends = Counter(id for net in nets for id in (*net.sources, *net.targets))
    widths = {p.id: max(box_width(p), 28 + _PER_NET * ends[p.id]) for p in graph.problems}
    return widths | {p.id: max(PORT_W, 28 + _PER_NET * ends[p.id]) for p in graph.ports}


def place_columns(graph: LevelGraph, rows: Sequence[Row], widths: dict[str, float], gap: float) -> Across:
    """Columns side by side, each as wide as its widest cell, boxes centred, frames around their columns."""
    x = LABEL_W + _PAD
    columns: list[tuple[float, float]] = []
    opened: dict[str, float] = {}
    frames: list[tuple[str, float, float]] = []
    previous: tuple[str, ...] = ()
    for index, zone in enumerate(graph.zones):
        for frame in reversed([f for f in previous if f not in zone.frames]):
            frames.append((frame, opened.pop(frame), x))
            x += _FRAME_PAD
        for frame in [f for f in zone.frames if f not in previous]:
            x += _FRAME_PAD / 2
            opened[frame] = x
            x += _FRAME_PAD
        wide = _content(zone, rows, index, gap, widths)
        columns.append((x, x + wide + 2 * _PAD))
        x += wide + 2 * _PAD
        previous = zone.frames
    for frame in reversed(list(opened)):
        frames.append((frame, opened[frame], x))
        x += _FRAME_PAD
    return Across(
        tuple(columns), tuple(frames), _lefts(rows, columns, gap, widths), widths, LABEL_W, x + _PAD
    )


def _content(zone: Zone, rows: Sequence[Row], index: int, gap: float, widths: dict[str, float]) -> float:
    name = width(zone.label, _HEADER_SIZE) + 8
    return max(name, *(_cell_width(row.cells[index], gap, widths) for row in rows))


def _cell_width(cell: Sequence[str], gap: float, widths: dict[str, float]) -> float:
    return sum(widths[id] for id in cell) + gap * max(0, len(cell) - 1)


def _lefts(
    rows: Sequence[Row], columns: Sequence[tuple[float, float]], gap: float, widths: dict[str, float]
) -> dict[str, float]:
    left = {}
    for row in rows:
        for (start, end), cell in zip(columns, row.cells, strict=True):
            x = (start + end - _cell_width(cell, gap, widths)) / 2
            for id in cell:
                left[id] = x
                x += widths[id] + gap
    return left
