"""Curves with a band from the lowest to the highest run, and dots, as SVG without a plotting library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from nldsl.train.plot import PALETTE

PANEL, HEIGHT, LEFT, TOP, BOTTOM, GAP, LINE = 300, 260, 56, 58, 46, 62, 17
Run = Sequence[tuple[float, float]]
Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A title, what the axes measure, the runs of every name, and marks across: `(x, label)`."""

    title: str
    x: str
    y: str
    runs: dict[str, Sequence[Run]]
    marks: Sequence[tuple[float, str]] = ()
    top: float | None = None


def picture(panels: Sequence[Panel], names: Sequence[str], title: str) -> str:
    """The panels side by side, and one legend below them.

    All runs of a name have their points at the same places in order; the line is the mean over runs.
    """
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    width = LEFT + len(panels) * PANEL + (len(panels) - 1) * GAP + 20
    columns = max(1, width // 230)
    height = TOP + HEIGHT + BOTTOM + LINE * -(-len(names) // columns) + 10
    parts = opening(width, height, title)
    for number, panel in enumerate(panels):
        parts += drawn(panel, LEFT + number * (PANEL + GAP), colours)
    for i, name in enumerate(names):
        x, y = LEFT + (i % columns) * 230, TOP + HEIGHT + BOTTOM + LINE * (i // columns) + 6
        parts.append(f'<path d="M{x},{y - 4} h22" stroke="{colours[name]}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 28}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def opening(width: float, height: float, title: str) -> list[str]:
    """The picture's head: its size, a white ground, its title."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="15">{escape(title)}</text>',
    ]


def drawn(panel: Panel, left: float, colours: dict[str, str]) -> list[str]:
    """One panel: axes, marks, bands, lines."""
    points = [point for runs in panel.runs.values() for run in runs for point in run]
    last = max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    if panel.top is not None and low < panel.top:
        high = min(high, panel.top)
    floor = TOP + HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        level = (min(y, high) - low) / ((high - low) or 1.0)
        return left + PANEL * x / (last or 1.0), floor - HEIGHT * level

    parts = [f'<text x="{left}" y="{TOP - 14}" font-size="13">{escape(panel.title)}</text>']
    for i in range(5):
        x, y = last * i / 4, low + (high - low) * i / 4
        (px, _), (_, py) = place(x, low), place(0, y)
        parts.append(f'<path d="M{left},{py:.1f} h{PANEL}" stroke="#e0e0e0"/>')
        parts.append(f'<text x="{left - 6}" y="{py + 4:.1f}" text-anchor="end">{y:.2f}</text>')
        parts.append(
            f'<text x="{px:.1f}" y="{floor + 16}" text-anchor="middle">{x:.{0 if last >= 10 else 1}f}</text>'
        )
    parts.append(
        f'<text x="{left + PANEL / 2}" y="{floor + 34}" text-anchor="middle">{escape(panel.x)}</text>'
    )
    middle = TOP + HEIGHT / 2
    parts.append(
        f'<text transform="translate({left - 42} {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(panel.y)}</text>"
    )
    for x, label in panel.marks:
        px, _ = place(x, low)
        parts.append(f'<path d="M{px:.1f},{TOP} V{floor}" stroke="#888888" stroke-dasharray="4 3"/>')
        parts.append(
            f'<text x="{px + 4:.1f}" y="{TOP + 12}" fill="#666666" font-size="11">{escape(label)}</text>'
        )
    for name, runs in panel.runs.items():
        parts += band(runs, place, colours[name])
    return parts


def band(runs: Sequence[Run], place: Place, colour: str) -> list[str]:
    """The mean of runs as a line, what lies between their extremes as an area."""
    rows = list(zip(*runs, strict=True))
    mean = [(sum(x for x, _ in row) / len(row), sum(y for _, y in row) / len(row)) for row in rows]
    at = [x for x, _ in mean]
    upper = [place(x, max(y for _, y in row)) for x, row in zip(at, rows, strict=True)]
    lower = [place(x, min(y for _, y in row)) for x, row in zip(at, rows, strict=True)]
    area = path([*upper, *reversed(lower)])
    line = path([place(x, y) for x, y in mean])
    return [
        f'<polygon points="{area}" fill="{colour}" fill-opacity="0.15"/>',
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
    ]


def path(points: Sequence[tuple[float, float]]) -> str:
    """`x,y x,y ...`"""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def dots(columns: dict[str, dict[str, list[float]]], names: Sequence[str], title: str) -> str:
    """A row per name, a column per measure: a dot for each run, a stroke at the mean."""
    label, wide, tall, top = 200, 250, 28, 84
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    width, floor = label + len(columns) * (wide + 60) + 10, top + tall * len(names)
    parts = opening(width, floor + 34, title)
    for i, name in enumerate(names):
        y = top + tall * i + tall / 2
        parts.append(f'<text x="{label - 14}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
    for number, (measure, rows) in enumerate(columns.items()):
        left = label + number * (wide + 60)
        every = [value for values in rows.values() for value in values]
        low, high = min(every), max(every)
        margin = 0.05 * ((high - low) or 1.0)
        low, high = low - margin, high + margin
        parts.append(f'<text x="{left}" y="{top - 34}" font-size="13">{escape(measure)}</text>')
        for i in range(5):
            value = low + (high - low) * i / 4
            x = left + wide * i / 4
            parts.append(f'<path d="M{x:.1f},{top - 6} V{floor}" stroke="#e0e0e0"/>')
            parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{value:.2f}</text>')
        for i, name in enumerate(names):
            y = top + tall * i + tall / 2
            places = [left + wide * (value - low) / (high - low) for value in rows[name]]
            middle = sum(places) / len(places)
            parts.append(f'<path d="M{middle:.1f},{y - 9} v18" stroke="{colours[name]}" stroke-width="3"/>')
            parts += [
                f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{colours[name]}" fill-opacity="0.6"/>'
                for x in places
            ]
    return "\n".join([*parts, "</svg>", ""])
