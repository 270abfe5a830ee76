"""`LevelGraph` -> `Layout`: levels as bands, blocks as columns, nets routed between.

The fastest level stands at the top.  Nothing here knows about SVG.
"""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.graph import LevelGraph, Port, Problem
from nldsl.graph.compare import Comparison
from nldsl.view.arrange import PORTS, Row, arrange
from nldsl.view.boxes import box_height
from nldsl.view.columns import LABEL_W, PORT_H, Across, box_widths, place_columns
from nldsl.view.geometry import Band, Box, Column, FrameBox, Layout, Rect
from nldsl.view.legend import legend
from nldsl.view.measure import width
from nldsl.view.nets import bundle
from nldsl.view.routing import LANE, Plan, plan_routes
from nldsl.view.wires import CHANNEL_PAD, Down, draw_wires

MARGIN = 24.0
_TITLE_H, _HEADER_H, _BADGE_H = 62.0, 26.0, 24.0
_BAND_LEAST = 118.0
_LEAST_WIDTH = 860.0


def lay_out(graph: LevelGraph, comparison: Comparison | None = None) -> Layout:
    """Place everything a picture of `graph` shows.

    A comparison that `graph` is the union of marks what it added, removed and changed.
    """
    nets = bundle(graph, comparison)
    rows = arrange(graph, nets)
    widths = box_widths(graph, nets)
    across = place_columns(graph, rows, widths, _gap(graph))
    plan = plan_routes(rows, nets, across)
    top = MARGIN + _TITLE_H + _HEADER_H + _BADGE_H * _depth(graph)
    tall = [_tall(graph, row, widths) for row in rows]
    down = _heights(rows, plan, top, tall)
    boxes = _boxes(graph, rows, across, down)
    routes = draw_wires(nets, plan, down, {b.item.id: b.rect for b in boxes})
    rightmost = max((x for r in routes for w in r.wires for x, _ in w.points), default=0.0)
    summary = summarise(graph) if comparison is None else _told(comparison)
    right = max(across.end, rightmost + MARGIN, _LEAST_WIDTH, MARGIN + width(summary, 13)) + MARGIN
    bands = _bands(graph, rows, down, right - MARGIN)
    bottom = down.rows[-1][0] + down.rows[-1][1] + MARGIN
    entries = legend(graph, MARGIN, bottom, right - MARGIN)
    canvas = Rect(0, 0, right, entries[-1].rect.bottom + MARGIN)
    span = (bands[0].rect.y, bands[-1].rect.bottom) if bands else (top, top)
    columns = _columns(graph, across, span)
    marks = tuple(comparison.problems.items()) if comparison else ()
    frames = _frames(graph, across, span)
    return Layout(graph.name, summary, canvas, bands, columns, frames, boxes, routes, entries, marks)


def _told(comparison: Comparison) -> str:
    """How much is different, in one line."""
    states = [comparison.problems.get(id) for id in comparison.problems]
    words = [f"{states.count(s)} {s}" for s in ("added", "removed", "changed") if states.count(s)]
    wires = len(comparison.transfers)
    return "  ·  ".join(
        [*(words or ["same problems"]), f"{wires} {'transfer' if wires == 1 else 'transfers'} differ"]
    )


def summarise(graph: LevelGraph) -> str:
    """One line about the whole: kind, problems, levels, slow parameters, task."""
    memories = sum(
        p.multiplicity for p in graph.problems if p.kind not in ("slow parameters", "optimiser memory")
    )
    numbers = len({level.number.split(".")[0] for level in graph.levels})
    slow = sum(p.parameters for p in graph.problems)
    parts = [
        graph.kind,
        f"{memories} {'memory' if memories == 1 else 'memories'}",
        f"{numbers} {'frequency' if numbers == 1 else 'frequencies'}",
        f"{slow:,} slow parameters",
        *([f"task {graph.task}"] if graph.task else []),
    ]
    return "  ·  ".join(parts)


def _gap(graph: LevelGraph) -> float:
    """Room between boxes grows with the number of problems, since more wires pass between them."""
    return 30.0 + min(26.0, 1.5 * len(graph.problems))


def _depth(graph: LevelGraph) -> int:
    return max((len(z.frames) for z in graph.zones), default=0)


def _tall(graph: LevelGraph, row: Row, widths: dict[str, float]) -> float:
    """The height of the boxes of a row."""
    if row.level == PORTS:
        return PORT_H
    return box_height((graph.problem(id) for id in row.items), widths)


def _heights(rows: Sequence[Row], plan: Plan, top: float, tall: Sequence[float]) -> Down:
    """Tops and heights of channels and rows; a level of one row is at least as tall as its text."""
    channel = [2 * CHANNEL_PAD + plan.lane_count[c] * LANE for c in range(len(rows) + 1)]
    channel[-1] = 0.0
    for level in {row.level for row in rows if row.level != PORTS}:
        members = [i for i, row in enumerate(rows) if row.level == level]
        first, last = members[0], members[-1]
        inner = sum(channel[i] for i in members[1:]) + sum(tall[i] for i in members)
        missing = _BAND_LEAST - inner - (channel[first] + channel[last + 1]) / 2
        if missing > 0:
            channel[first] += missing
            channel[last + 1] += missing
    channels, heights, y = [], [], top
    for i in range(len(rows)):
        channels.append((y, channel[i]))
        y += channel[i]
        heights.append((y, tall[i]))
        y += tall[i]
    channels.append((y, channel[-1]))
    return Down(tuple(channels), tuple(heights))


def _boxes(graph: LevelGraph, rows: Sequence[Row], across: Across, down: Down) -> tuple[Box, ...]:
    items: dict[str, Problem | Port] = {p.id: p for p in graph.problems}
    items |= {p.id: p for p in graph.ports}
    boxes = []
    for row, (y, tall) in zip(rows, down.rows, strict=True):
        for id in row.items:
            boxes.append(Box(items[id], Rect(across.left[id], y, across.width[id], tall)))
    return tuple(boxes)


def _bands(graph: LevelGraph, rows: Sequence[Row], down: Down, right: float) -> tuple[Band, ...]:
    """Bands meet in the middle of the channel between their rows."""
    bands = []
    for index in reversed(range(len(graph.levels))):
        members = [i for i, row in enumerate(rows) if row.level == index]
        first, last = members[0], members[-1]
        y = down.channels[first][0] + (down.channels[first][1] / 2 if first > 0 else 0)
        end = down.channels[last + 1][0] + down.channels[last + 1][1] / 2
        rect = Rect(MARGIN, y, right - MARGIN, end - y)
        bands.append(
            Band(graph.levels[index], rect, Rect(MARGIN + 14, y + 10, LABEL_W - MARGIN - 22, end - y - 20))
        )
    return tuple(bands)


def _columns(graph: LevelGraph, across: Across, span: tuple[float, float]) -> tuple[Column, ...]:
    top, bottom = span
    return tuple(
        Column(zone, Rect(a, top, b - a, bottom - top), Rect(a, top - _HEADER_H, b - a, _HEADER_H))
        for zone, (a, b) in zip(graph.zones, across.columns, strict=True)
    )


def _frames(graph: LevelGraph, across: Across, span: tuple[float, float]) -> tuple[FrameBox, ...]:
    """Inner repeats lie inside outer ones: an outer frame is taller by one badge per repeat in it."""
    known = {frame.id: frame for frame in graph.frames}
    depth = {f: i for zone in graph.zones for i, f in enumerate(zone.frames)}
    most = _depth(graph)
    found = []
    for id, a, b in across.frames:
        inside = most - depth[id]
        top = span[0] - _HEADER_H - _BADGE_H * inside
        rect = Rect(a, top, b - a, span[1] + 4 * inside - top)
        found.append(FrameBox(known[id], rect, Rect(a + 8, top, max(b - a - 16, 0), _BADGE_H)))
    return tuple(found)
