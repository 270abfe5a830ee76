"""The level graph as one HTML page that needs no network and no other file."""

from __future__ import annotations

import json
from importlib.resources import files

from nldsl.graph import TRANSFERS, LevelGraph, to_json
from nldsl.view.draw import draw_svg
from nldsl.view.geometry import KINDS, Layout
from nldsl.view.layout import lay_out
from nldsl.view.svg import element, joined, text
from nldsl.view.theme import DARK, LIGHT

HINT = "Point at a problem to see what it is wired to. Click one to see what it is."

# Nothing may be loaded: not from the network, not from beside the file.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def draw_html(graph: LevelGraph, layout: Layout | None = None) -> str:
    """The page of `graph`: the picture, switches per transfer, and a panel of details."""
    layout = layout or lay_out(graph)
    css = joined([_variables(), _asset("page.css"), _paint()])
    head = joined(
        [
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            element("title", {}, text(f"Levels of {graph.name}")),
            f"<style>\n{css}\n</style>",
        ]
    )
    about = element("div", {"id": "about", "data-hint": HINT}, element("p", {}, text(HINT)))
    body = joined(
        [
            f'<main id="picture" class="fit">\n{draw_svg(layout)}</main>',
            f'<aside id="details">\n{_switches()}\n{about}\n</aside>',
            f'<script type="application/json" id="graph">{_data(graph, layout)}</script>',
            f"<script>\n{_asset('page.js')}</script>",
        ]
    )
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _asset(name: str) -> str:
    return files("nldsl.view").joinpath(name).read_text(encoding="utf-8")


def _data(graph: LevelGraph, layout: Layout) -> str:
    """The graph for the script; `<` is escaped, so no text can end the script element."""
    nets = [{"sources": r.net.sources, "targets": r.net.targets} for r in layout.routes]
    return json.dumps({**to_json(graph), "nets": nets}, ensure_ascii=True).replace("<", "\\u003c")


def _variables() -> str:
    def table(colours: dict[str, str]) -> str:
        return " ".join(f"--{name}: {value};" for name, value in colours.items())

    return f":root {{ {table(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {table(DARK)} }} }}"


def _paint() -> str:
    """Classes of the picture take their colours from the variables, so that dark mode reaches them."""
    rules = [
        f".fill-{name} {{ fill: var(--{name}); }} .stroke-{name} {{ stroke: var(--{name}); }}"
        for name in LIGHT
    ]
    return joined(rules)


def _switches() -> str:
    labels = []
    for kind in KINDS:
        box = f'<input type="checkbox" value="{kind}" checked>'
        line = f'<i style="background: var(--{kind})"></i>'
        labels.append(element("label", {"title": TRANSFERS[kind]}, box, line, text(kind)))
    labels.append(element("label", {}, '<input type="checkbox" id="fit" checked>', text("fit to the window")))
    return element("div", {"id": "switches"}, *labels)
