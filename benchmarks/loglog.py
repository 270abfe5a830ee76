"""Curves on logarithmic axes, as an SVG picture of several panels beside one list of names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from nldsl.train.plot import PALETTE, line

PANEL, HEIGHT, LEFT, TOP, BOTTOM = 430, 400, 58, 44, 66
LETTER = 7
"""Width of a letter of the list of names."""
Curves = Mapping[str, Sequence[tuple[float, float]]]


def loglog(panels: Mapping[str, Curves], by: str, note: str = "") -> str:
    """A panel for each measure, its curves `(x, y)` by name; points that are not positive are left out.

    >>> loglog({"ms": {"a": [(1, 2.0), (2, 2.1)]}}, "tokens").count("<polyline")
    1
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    styles = {name: (PALETTE[i % len(PALETTE)], dashes(i)) for i, name in enumerate(names)}
    width = PANEL * len(panels) + 56 + LETTER * max(map(len, names), default=0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="12" role="img" '
        f'aria-label="{escape(", ".join(panels))}">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    for index, (title, curves) in enumerate(panels.items()):
        seen = {name: [(x, y) for x, y in curve if x > 0 and y > 0] for name, curve in curves.items()}
        parts += panel(index * PANEL, title, {n: c for n, c in seen.items() if c}, styles, by)
    for i, name in enumerate(names):
        x, y, (colour, dash) = PANEL * len(panels) + 12, TOP + 10 + 20 * i, styles[name]
        parts.append(f'<path d="M{x} {y - 4}h26" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<circle r="3" fill="{colour}" cx="{x + 13}" cy="{y - 4}"/>')
        parts.append(f'<text x="{x + 32}" y="{y}">{escape(name)}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}" font-size="11" fill="#666">{escape(note)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def dashes(number: int) -> str:
    """Lines beyond the number of colours are broken."""
    return ' stroke-dasharray="7 4"' if number >= len(PALETTE) else ""


def panel(left: int, title: str, curves: Curves, styles: Mapping[str, tuple[str, str]], by: str) -> list[str]:
    """Axes with their marks, and the curves."""
    near, right, floor = left + LEFT, left + PANEL - 14, HEIGHT - BOTTOM
    middle = (near + right) / 2
    parts = [
        f'<text x="{near}" y="26" font-size="14">{escape(title)}</text>',
        f'<text x="{middle}" y="{floor + 38}" text-anchor="middle">{escape(by)}</text>',
    ]
    if not curves:
        return [*parts, f'<text x="{middle}" y="{HEIGHT / 2}" text-anchor="middle">nothing to draw</text>']
    points = [point for curve in curves.values() for point in curve]
    xs, ys = marks([x for x, _ in points]), marks([y for _, y in points], least=10.0)

    def place(x: float, y: float) -> tuple[float, float]:
        return near + (right - near) * share(x, xs), floor - (floor - TOP) * share(y, ys)

    for y in ys:
        height = place(xs[0], y)[1]
        parts.append(f'<path d="M{near} {height:.1f}H{right}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{near - 6}" y="{height + 4:.1f}" text-anchor="end">{shown(y)}</text>')
    for x in xs:
        along = place(x, ys[0])[0]
        parts.append(f'<path d="M{along:.1f} {TOP}V{floor}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{along:.1f}" y="{floor + 18}" text-anchor="middle">{shown(x)}</text>')
    parts.append(f'<path d="M{near} {TOP}V{floor}H{right}" stroke="#888" fill="none"/>')
    for name, curve in curves.items():
        (colour, dash), places = styles[name], [place(x, y) for x, y in curve]
        drawn = line((f"{x:.1f},{y:.1f}" for x, y in places), colour, 2)
        parts.append(drawn.replace("/>", f"{dash}/>"))
        parts += [f'<circle r="3" fill="{colour}" cx="{x:.1f}" cy="{y:.1f}"/>' for x, y in places]
    return parts


def share(value: float, ticks: Sequence[float]) -> float:
    """Where a value lies between the first mark and the last, on a logarithmic axis."""
    return math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])


def marks(values: Sequence[float], least: float = 1.0) -> list[float]:
    """Powers of two where all values are some, else 1, 2, 5, 10, ... around them; about ten, two at least.

    least: the ratio of the ends, so that noise around a constant looks like what it is.

    >>> marks([512, 2048]), marks([3.0, 40.0])
    ([512.0, 1024.0, 2048.0], [2.0, 5.0, 10.0, 20.0, 50.0])
    """
    low, high = min(values), max(values)
    if least == 1 and all(v == 2.0 ** round(math.log2(v)) for v in values):
        ends = round(math.log2(low)), round(math.log2(high))
        step = 1 + (ends[1] - ends[0]) // 10
        return [2.0**i for i in range(ends[0], max(ends[1], ends[0] + 1) + step, step)]
    decades = range(math.floor(math.log10(low)) - 2, math.ceil(math.log10(high)) + 3)
    for kinds in ((1, 2, 5), (1,)):
        every = [kind * 10.0**decade for decade in decades for kind in kinds]
        below = max(i for i, v in enumerate(every) if v <= low * (1 + 1e-9))
        above = min(i for i, v in enumerate(every) if v >= high * (1 - 1e-9))
        above = max(above, below + 1)
        while every[above] < least * every[below] * (1 - 1e-9):
            below, above = (
                (below, above + 1) if every[above] * every[below] < low * high else (below - 1, above)
            )
        found = every[below : above + 1]
        if len(found) <= 10:
            break
    return found


def shown(value: float) -> str:
    """A number as axes show it.

    >>> shown(16384), shown(0.05), shown(1000000)
    ('16,384', '0.05', '1 M')
    """
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"
