"""Curves over powers of two on logarithmic axes, as an SVG picture of several panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from nldsl.train.plot import PALETTE, line

PANEL, HEIGHT, LEFT, TOP, BOTTOM, NAMES = 400, 360, 56, 40, 46, 190
Curves = Mapping[str, Sequence[tuple[float, float]]]


def loglog(panels: Mapping[str, Curves], by: str) -> str:
    """A panel for each measure, its curves `(x, y)` by name; one list of names at the right.

    >>> loglog({"ms": {"a": [(1, 2.0), (2, 2.1)]}}, "tokens").count("<polyline")
    1
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}
    width = PANEL * len(panels) + NAMES
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(", ".join(panels))}">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    for index, (title, curves) in enumerate(panels.items()):
        parts += panel(index * PANEL, title, curves, colours, by)
    for i, name in enumerate(names):
        x, y, dash = width - NAMES + 10, TOP + 10 + 20 * i, dashes(i)
        parts.append(f'<path d="M{x} {y - 4}h20" stroke="{colours[name]}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{x + 26}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def dashes(number: int) -> str:
    """Lines beyond the number of colours are broken."""
    return ' stroke-dasharray="6 3"' if number >= len(PALETTE) else ""


def panel(left: int, title: str, curves: Curves, colours: Mapping[str, str], by: str) -> list[str]:
    """Axes with a mark at every power, and the curves."""
    points = [point for curve in curves.values() for point in curve]
    xs, ys = bounds([x for x, _ in points], 2), bounds([y for _, y in points], 10)
    right, floor = left + PANEL - 16, HEIGHT - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log(x) - math.log(xs[0])) / (math.log(xs[1]) - math.log(xs[0]))
        up = (math.log(y) - math.log(ys[0])) / (math.log(ys[1]) - math.log(ys[0]))
        return left + LEFT + (right - left - LEFT) * along, floor - (floor - TOP) * up

    parts = [f'<text x="{left + LEFT}" y="22" font-size="14">{escape(title)}</text>']
    for y in powers(ys, 10):
        height = place(xs[0], y)[1]
        parts.append(f'<path d="M{left + LEFT} {height:.1f}H{right}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{left + LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in powers(xs, 2):
        along = place(x, ys[0])[0]
        shown = f"{x:g}" if x < 1024 else f"{x / 1024:g}k"
        parts.append(f'<text x="{along:.1f}" y="{floor + 18}" text-anchor="middle">{shown}</text>')
    middle = (left + LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(by)}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        places = [place(x, y) for x, y in curve]
        drawn = line((f"{x:.1f},{y:.1f}" for x, y in places), colours[name], 2)
        parts.append(drawn.replace("/>", f"{dashes(number)}/>"))
        parts += [f'<circle r="3" fill="{colours[name]}" cx="{x:.1f}" cy="{y:.1f}"/>' for x, y in places]
    return parts


def bounds(values: Sequence[float], base: int) -> tuple[float, float]:
    """The powers around the values, at least one apart."""
    low = math.floor(math.log(min(values), base) + 1e-9)
    high = math.ceil(math.log(max(values), base) - 1e-9)
    return float(base) ** low, float(base) ** max(high, low + 1)


def powers(ends: tuple[float, float], base: int) -> list[float]:
    """All powers from one end to the other."""
    steps = round(math.log(ends[1] / ends[0], base))
    return [ends[0] * base**i for i in range(steps + 1)]
