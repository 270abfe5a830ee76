"""The level graph as one HTML page that needs no network and no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from nldsl.graph import TRANSFERS, LevelGraph, build_graph, to_json
from nldsl.graph.compare import Comparison, compare
from nldsl.graph.fold import CROWDED, folded
from nldsl.spec.program import Program
from nldsl.view.details import Detail, details
from nldsl.view.draw import draw_svg
from nldsl.view.geometry import KINDS, Layout
from nldsl.view.layout import lay_out, summarise
from nldsl.view.scene import scene
from nldsl.view.svg import element, joined, text
from nldsl.view.theme import DARK, LIGHT
from nldsl.view.timeline import Timeline, timeline
from nldsl.view.timeline_svg import draw_timeline

# Nothing may be loaded: not from the network, not from beside the file.  `blob:` is what an export
# to PNG draws from.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob:"

_SCRIPTS = ("base", "scene", "wires", "camera", "panel", "edges", "find", "time", "save", "keys", "start")


def draw_page(program: Program, before: Program | None = None, most: int = CROWDED) -> str:
    """The page of a program with its equations, text and timeline.

    before: show what has changed since this one.  most: with more blocks, runs of like ones are folded.
    """
    graph = folded(build_graph(program), most)
    if before is None:
        return draw_html(graph, known=details(program, graph), line=timeline(program, graph=graph))
    old = folded(build_graph(before), most)
    comparison = compare(old, graph)
    known = {**details(before, old), **details(program, graph)}
    return draw_html(
        comparison.graph, known=known, line=timeline(program, graph=graph), comparison=comparison
    )


def draw_html(
    graph: LevelGraph,
    layout: Layout | None = None,
    *,
    known: Mapping[str, Detail] | None = None,
    line: Timeline | None = None,
    comparison: Comparison | None = None,
) -> str:
    """The page of `graph`: the picture, and a panel that tells what one points at.

    known: details by problem.  line: a timeline below the picture.  comparison: `graph` is its union.
    Without scripts it is the picture alone.
    """
    layout = layout or lay_out(graph, comparison)
    data = {
        "graph": to_json(graph),
        "scene": scene(layout, graph),
        "details": {id: detail.to_json() for id, detail in (known or {}).items()},
        "timeline": line.to_json() if line else None,
        "comparison": comparison.to_json() if comparison else None,
        "summary": layout.summary if comparison else summarise(graph),
        "meaning": dict(TRANSFERS),
    }
    time = (
        f'<section id="time" aria-label="timeline" hidden>\n{draw_timeline(line, titled=False)}</section>'
        if line
        else ""
    )
    body = joined(
        [
            _bar(graph, bool(line)),
            f'<main id="stage" aria-label="level graph">\n{draw_svg(layout)}</main>',
            '<aside id="panel" aria-label="details"><div id="about"></div></aside>',
            time,
            _overlays(),
            f'<script type="application/json" id="data">{embedded(data)}</script>',
            f"<script>\n{script(_SCRIPTS)}</script>",
        ]
    )
    return document(f"Levels of {graph.name}", joined([style_variables(), asset("page.css"), paint()]), body)


def document(title: str, css: str, body: str, policy: str = POLICY) -> str:
    """A whole HTML document in which nothing but its own style and script runs."""
    head = joined(
        [
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            element("title", {}, text(title)),
            f"<style>\n{css}\n</style>",
        ]
    )
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def asset(name: str) -> str:
    """A file of the folder `web`."""
    return files("nldsl.view").joinpath("web", name).read_text(encoding="utf-8")


def script(names: tuple[str, ...]) -> str:
    """Scripts joined in one scope of their own."""
    return joined(['"use strict";', "(() => {", *(asset(f"{name}.js") for name in names), "})();", ""])


def embedded(data: Any) -> str:
    """JSON inside of a script element; `<` is escaped, so no text can end the element."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def style_variables() -> str:
    """The colours of both themes: as the system has it, or as `data-theme` says."""

    def table(colours: dict[str, str]) -> str:
        return " ".join(f"--{name}: {value};" for name, value in colours.items())

    light, dark = (f"color-scheme: {name}; {table(c)}" for name, c in (("light", LIGHT), ("dark", DARK)))
    return joined(
        [
            f":root {{ {light} }}",
            f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {dark} }} }}",
            f":root[data-theme=dark] {{ {dark} }}",
            f"@media print {{ :root, :root[data-theme] {{ {light} }} }}",
        ]
    )


def paint() -> str:
    """Classes of pictures take their colours from the variables, so that themes reach them."""
    rules = [
        f".fill-{name} {{ fill: var(--{name}); }} .stroke-{name} {{ stroke: var(--{name}); }}"
        for name in LIGHT
    ]
    return joined(rules)


def _button(id: str, sign: str, title: str, key: str = "") -> str:
    hint = f"{title} ({key})" if key else title
    about = {"id": id, "type": "button", "title": hint, "aria-label": title}
    return element("button", {**about}, text(sign))


def _bar(graph: LevelGraph, timed: bool) -> str:
    """Name, search, and what one can do with the picture."""
    search = (
        '<div id="search"><input id="find" type="search" placeholder="Search (/)" autocomplete="off" '
        'spellcheck="false" role="combobox" aria-label="search problems" aria-expanded="false" '
        'aria-controls="results" aria-autocomplete="list"><ul id="results" role="listbox" hidden></ul></div>'
    )
    switches = [
        f'<label title="{text(TRANSFERS[kind])}"><input type="checkbox" value="{kind}" checked>'
        f'<i style="background: var(--{kind})"></i><span>{kind}</span></label>'
        for kind in KINDS
    ]
    groups = [
        [_button("out", "−", "zoom out", "-"), _button("fit", "fit", "fit to the window", "0"),
         _button("in", "+", "zoom in", "+")],
        [_button("fold", "fold", "fold or unfold all blocks", "F")],
        [_button("clock", "timeline", "timeline", "t")] if timed else [],
        [_button("svg", "SVG", "save as SVG", "s"), _button("png", "PNG", "save as PNG", "p")],
        [_button("theme", "theme", "light or dark", "d"), _button("help-button", "?", "help", "?")],
    ]  # fmt: skip
    buttons = [element("span", {"class": "group"}, *group) for group in groups if group]
    return element(
        "header",
        {"id": "bar"},
        element("h1", {}, text(graph.name)),
        search,
        element("div", {"id": "switches", "role": "group", "aria-label": "transfers"}, *switches),
        element("div", {"id": "tools", "role": "toolbar", "aria-label": "picture"}, *buttons),
    )


_KEYS = (
    ("/", "search"),
    ("arrows", "walk from problem to problem"),
    ("Enter", "show the problem"),
    ("Esc", "let go, close"),
    ("+  −  0", "zoom in, out, fit"),
    ("drag, wheel", "pan, zoom; with Shift the wheel pans"),
    ("f  F", "fold the block, all blocks"),
    ("t", "timeline"),
    ("d", "light or dark"),
    ("s  p", "save as SVG, PNG"),
)


def _overlays() -> str:
    rows = [element("dt", {}, text(keys)) + element("dd", {}, text(what)) for keys, what in _KEYS]
    keys = element("dl", {}, *rows)
    close = '<button type="button" id="help-close">close</button>'
    help_box = f'<dialog id="help" aria-label="keys"><h2>Keys</h2>{keys}{close}</dialog>'
    small_map = '<svg id="map" aria-hidden="true" hidden></svg>'
    return joined(['<div id="tip" role="status" hidden></div>', small_map, help_box])
