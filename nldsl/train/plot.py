"""The loss curves of runs as an SVG picture, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
TRAIN, HELDOUT = "#7aa6c2", "#b3441e"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#000000", "#e69f00")
"""Okabe and Ito's colours, told apart by everyone, the yellow darkened."""
TRAINING, HELD_OUT = "bits_per_byte", "heldout_bits_per_byte"

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One line of a plot; marks are drawn at its points where there are few."""

    name: str
    points: Points
    colour: str
    width: int = 1
    marked: bool = False


def loss_svg(records: Sequence[dict[str, Any]], title: str) -> str:
    """Bits per byte against the step: training (smoothed) and held-out, from the records of a run's log.

    Example:
        >>> "<svg" in loss_svg([{"step": 1, "bits_per_byte": 8.0}, {"step": 2, "bits_per_byte": 7.0}], "demo")
        True
    """
    train, heldout = smoothed(points_of(records, TRAINING)), points_of(records, HELD_OUT)
    curves = [Curve("training", train, TRAIN), Curve("held-out", heldout, HELDOUT, 2, marked=True)]
    return drawn(curves, title, "step", unit_of(records))


def compare_svg(runs: Mapping[str, Sequence[dict[str, Any]]], by: str) -> str:
    """Bits per byte of several runs against `by`: `step`, `tokens` or `seconds`.

    Every run has a colour: training thin and smoothed, held-out bold with marks.

    Example:
        >>> log = [{"step": 1, "tokens": 64, "bits_per_byte": 8.0}]
        >>> compare_svg({"a": log, "b": log}, "tokens").count("<polyline")
        4
    """
    curves = []
    for number, (name, records) in enumerate(runs.items()):
        colour = PALETTE[number % len(PALETTE)]
        curves.append(Curve("", smoothed(points_of(records, TRAINING, by)), colour))
        curves.append(Curve(name, points_of(records, HELD_OUT, by), colour, 2, marked=True))
    units = {unit_of(records) for records in runs.values()}
    return drawn(curves, "held-out bold, training thin", by, " or ".join(sorted(units)))


def unit_of(records: Sequence[dict[str, Any]]) -> str:
    """What the bits of a log are per."""
    return "label" if any(TRAINING.replace("byte", "label") in r for r in records) else "byte"


def points_of(records: Sequence[dict[str, Any]], value: str, by: str = "step") -> Points:
    """The points of a log that have both."""
    named = (value, value.replace("_byte", "_label"))
    return [(r[by], r[name]) for r in records for name in named if name in r and by in r]


def drawn(curves: Sequence[Curve], title: str, by: str, unit: str) -> str:
    """The picture of curves on common axes."""
    every = [point for curve in curves for point in curve.points] or [(0.0, 0.0)]
    last = max(x for x, _ in every) or 1.0
    low, high = min(y for _, y in every), max(y for _, y in every)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5

    def place(point: tuple[float, float]) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point[0] / last
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - point[1]) / (high - low)
        return f"{x:.1f},{y:.1f}"

    marks = [(curve.colour, place(p).split(",")) for curve in curves if curve.marked for p in curve.points]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
        *axes(last, low, high, by, unit),
        *(line(map(place, curve.points), curve.colour, curve.width) for curve in curves),
        *(f'<circle r="3" fill="{colour}" cx="{x}" cy="{y}"/>' for colour, (x, y) in marks),
        *legend([curve for curve in curves if curve.name]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def legend(curves: Sequence[Curve]) -> list[str]:
    """Names in their colours, below each other at the right."""
    return [
        f'<text x="{WIDTH - RIGHT}" y="{22 + 15 * i}" text-anchor="end" fill="{curve.colour}">'
        f"{escape(curve.name)}</text>"
        for i, curve in enumerate(curves)
    ]


def line(places: Iterable[str], colour: str, width: int) -> str:
    """A line through `x,y` pairs."""
    return f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{" ".join(places)}"/>'


def axes(last: float, low: float, high: float, by: str, unit: str) -> list[str]:
    """Marks at round numbers of both axes, and what they measure."""
    parts = []
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in ticks(low, high):
        y = floor - (floor - TOP) * (value - low) / (high - low)
        parts += [
            f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.5g}</text>',
        ]
    for value in ticks(0.0, last):
        x = LEFT + (right - LEFT) * value / last
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{value:.6g}</text>')
    middle = (TOP + floor) / 2
    return [
        *parts,
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{by}</text>',
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">bits per {unit}</text>',
    ]


def ticks(low: float, high: float) -> list[float]:
    """Four to nine multiples of 1, 2 or 5 times a power of ten, from `low` to `high`.

    Example:
        >>> ticks(0.93, 8.69), ticks(0.0, 60.0), ticks(2.21, 2.24)
        ([2.0, 4.0, 6.0, 8.0], [0.0, 20.0, 40.0, 60.0], [2.21, 2.22, 2.23, 2.24])
    """
    unit = 10.0 ** math.floor(math.log10(high - low))
    steps = [unit * factor for factor in (2.0, 1.0, 0.5, 0.2, 0.1)]
    step = next(s for s in steps if math.floor(high / s + 1e-9) - math.ceil(low / s - 1e-9) >= 3)
    first, behind = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, behind + 1)]


def smoothed(points: Points) -> Points:
    """An exponential mean over about a hundredth of the points, at most 600 of them."""
    keep = max(1, len(points) // 600)
    rate = 1 / max(1, len(points) // 100)
    result: Points = []
    mean = points[0][1] if points else 0.0
    for i, (x, y) in enumerate(points):
        mean += rate * (y - mean)
        if i % keep == 0 or i == len(points) - 1:
            result.append((x, mean))
    return result
