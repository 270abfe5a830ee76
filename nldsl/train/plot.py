"""The loss curve of a run as an SVG picture, without a plotting library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
TRAIN, HELDOUT = "#7aa6c2", "#b3441e"

Points = list[tuple[float, float]]


def loss_svg(records: Sequence[dict[str, Any]], title: str) -> str:
    """Bits per byte against the step: training (smoothed) and held-out, from the records of a run's log.

    Example:
        >>> "<svg" in loss_svg([{"step": 1, "bits_per_byte": 8.0}, {"step": 2, "bits_per_byte": 7.0}], "demo")
        True
    """
    train = smoothed([(r["step"], r["bits_per_byte"]) for r in records if "bits_per_byte" in r])
    heldout = [(r["step"], r["heldout_bits_per_byte"]) for r in records if "heldout_bits_per_byte" in r]
    every = train + heldout or [(0.0, 0.0)]
    last = max(1.0, max(x for x, _ in every))
    low, high = min(y for _, y in every), max(y for _, y in every)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5

    def place(point: tuple[float, float]) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * point[0] / last
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - point[1]) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
        *axes(last, low, high),
        line(map(place, train), TRAIN, 1),
        line(map(place, heldout), HELDOUT, 2),
        *(
            f'<circle r="3" fill="{HELDOUT}" cx="{c.split(",")[0]}" cy="{c.split(",")[1]}"/>'
            for c in map(place, heldout)
        ),
        f'<text x="{WIDTH - RIGHT}" y="22" text-anchor="end"><tspan fill="{TRAIN}">training</tspan>  '
        f'<tspan fill="{HELDOUT}">held-out</tspan></text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def line(places: Iterable[str], colour: str, width: int) -> str:
    """A line through `x,y` pairs."""
    return f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{" ".join(places)}"/>'


def axes(last: float, low: float, high: float) -> list[str]:
    """Five marks on each axis, and what they measure."""
    parts = []
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    for i in range(5):
        share = i / 4
        x, y = LEFT + (right - LEFT) * share, floor - (floor - TOP) * share
        parts += [
            f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{low + (high - low) * share:.2f}</text>',
            f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{last * share:.0f}</text>',
        ]
    middle = (TOP + floor) / 2
    return [
        *parts,
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">step</text>',
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">bits per byte</text>',
    ]


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
