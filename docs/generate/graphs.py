"""Level graphs inside pages, in the colours of the page."""

from __future__ import annotations

import re

from nldsl.graph import build_graph
from nldsl.graph.fold import folded
from nldsl.spec.program import Program
from nldsl.view import draw_svg, lay_out
from nldsl.view.page import draw_page
from nldsl.view.theme import DARK, LIGHT

_CROWDED = 8
_ID = re.compile(r'(\bid="|url\(#)head-')


def inline_graph(program: Program, name: str) -> str:
    """The level graph as SVG in the page; it scrolls where the page is narrower than its text allows."""
    svg = draw_svg(lay_out(folded(build_graph(program), _CROWDED)))
    svg = _ID.sub(rf"\g<1>{name}-head-", svg)
    one_line = "".join(line.strip() for line in svg.splitlines())
    return f'<div class="nl-graph">{one_line}</div>'


def graph_page(program: Program) -> str:
    """The page that one can move in, search and print."""
    return draw_page(program)


def colours() -> str:
    """The style sheet of the pictures: every colour by its role, for light and for dark."""
    light = "\n".join(_rules("", LIGHT))
    dark = "\n".join(_rules('[data-md-color-scheme="slate"] ', DARK))
    return f"{light}\n{dark}\n"


def _rules(scheme: str, table: dict[str, str]) -> list[str]:
    return [
        f"{scheme}.nl-graph .{what}-{role} {{ {what}: {colour}; }}"
        for role, colour in table.items()
        for what in ("fill", "stroke")
    ]
