"""A small writer of XML: every text and attribute is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

from nldsl.view.geometry import Pixel

Attribute = str | float | int


def element(tag: str, attributes: dict[str, Attribute], *children: str) -> str:
    """One element; `_` in names of attributes stands for `-`, numbers are rounded.

    Example:
        >>> element("text", {"x": 1.0, "font_size": 12}, text("a < b"))
        '<text x="1" font-size="12">a &lt; b</text>'
    """
    shown = "".join(f" {name.replace('_', '-')}={quoteattr(plain(v))}" for name, v in attributes.items())
    inside = "".join(children)
    return f"<{tag}{shown}>{inside}</{tag}>" if inside else f"<{tag}{shown}/>"


def text(words: str) -> str:
    """Escaped text; characters XML cannot hold become `?`."""
    return escape(
        "".join(c if c in "\t\n" or ord(c) >= 32 and ord(c) not in (0xFFFE, 0xFFFF) else "?" for c in words)
    )


def plain(value: Attribute) -> str:
    """A number without needless digits, or text that XML can hold."""
    if isinstance(value, str):
        return "".join(c if ord(c) >= 32 else " " for c in value)
    return f"{value:.1f}".removesuffix(".0")


def rounded(points: Sequence[Pixel], radius: float) -> str:
    """The path through `points` with its corners rounded off."""
    parts = [f"M{plain(points[0][0])} {plain(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _toward(corner, before, radius), _toward(corner, after, radius)
        parts.append(f"L{plain(start[0])} {plain(start[1])}")
        parts.append(f"Q{plain(corner[0])} {plain(corner[1])} {plain(end[0])} {plain(end[1])}")
    parts.append(f"L{plain(points[-1][0])} {plain(points[-1][1])}")
    return "".join(parts)


def joined(parts: Iterable[str]) -> str:
    """Elements below each other."""
    return "\n".join(parts)


def _toward(a: Pixel, b: Pixel, distance: float) -> Pixel:
    """The point `distance` from `a` on the way to `b`, at most `b`."""
    length = ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5
    share = min(1.0, distance / length) if length else 0.0
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])
