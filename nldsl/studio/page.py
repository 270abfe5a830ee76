"""The page of the studio; everything it needs is in it, and it talks to its own server only."""

from __future__ import annotations

from importlib.resources import files

from nldsl.lexer import CLAUSES, CONSTANTS, DEFINITIONS, MODIFIERS, STATEMENTS, WORDS
from nldsl.library import PRIMITIVES
from nldsl.studio.file import EditedFile
from nldsl.view.page import embedded, paint, style_variables
from nldsl.view.svg import element, joined, text

_SCRIPTS = ("base", "editor", "findings", "complete", "views", "start")
_TABS = (("graph", "Graph"), ("explain", "Explain"), ("timeline", "Timeline"), ("source", "PyTorch"))


def studio_page(name: str, file: EditedFile, token: str, nonce: str) -> str:
    """The whole page for what `file` holds, under a name."""
    can_save = file.path is not None
    data = {
        "name": name,
        "text": file.text,
        "seen": file.mark,
        "token": token,
        "save": can_save,
        "words": {
            "keyword": [*DEFINITIONS, *STATEMENTS, *CLAUSES, *MODIFIERS, *WORDS, "use", "nldsl"],
            "reserved": [*STATEMENTS, *CLAUSES, *WORDS],
            "constant": list(CONSTANTS),
            "function": [name for name in PRIMITIVES if name.isidentifier()],
        },
    }
    css = joined([style_variables(), _asset("studio.css"), paint()])
    head = joined(
        [
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            element("title", {}, text(f"{name} - nldsl studio")),
            f'<style nonce="{nonce}">\n{css}\n</style>',
        ]
    )
    scripts = joined(['"use strict";', "(() => {", *(_asset(f"{part}.js") for part in _SCRIPTS), "})();"])
    body = joined(
        [
            _bar(name, can_save),
            _EDITOR,
            '<div id="divider" role="separator" aria-orientation="vertical" aria-label="width of the editor" '
            'tabindex="0"></div>',
            _views(),
            '<ul id="proposals" role="listbox" aria-label="proposals" hidden></ul>',
            '<div id="tip" role="tooltip" hidden></div>',
            f'<script type="application/json" id="data">{embedded(data)}</script>',
            f'<script nonce="{nonce}">\n{scripts}\n</script>',
        ]
    )
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


_EDITOR = """<section id="left" aria-label="editor">
<div id="scroll"><div id="gutter" aria-hidden="true"></div><div id="sheet">
<pre id="paint" aria-hidden="true"></pre>
<textarea id="text" aria-label="specification" aria-describedby="findings-title" spellcheck="false"
 autocomplete="off" autocapitalize="off" autocorrect="off" wrap="off"></textarea>
</div></div>
<div id="findings" aria-live="polite"><h2 id="findings-title">reading ...</h2><ul></ul></div>
</section>"""


def _bar(name: str, can_save: bool) -> str:
    save = '<button id="save" type="button" title="save (Ctrl+S)">save</button>' if can_save else ""
    return joined(
        [
            '<header id="bar">',
            element("h1", {}, text(name) + '<span id="dirty" title="not saved" hidden> •</span>'),
            save,
            '<button id="download" type="button" title="download the text">download</button>',
            '<button id="format" type="button" title="format (Ctrl+Shift+F)">format</button>',
            '<span id="said" role="status"></span>',
            '<label id="choose">draw <select id="target" aria-label="what to draw"></select></label>',
            '<button id="theme" type="button" title="light or dark">theme</button>',
            "</header>",
        ]
    )


def _views() -> str:
    tabs = [
        f'<button type="button" role="tab" id="tab-{id}" aria-controls="view-{id}" '
        f'aria-selected="{"true" if id == "graph" else "false"}">{label}</button>'
        for id, label in _TABS
    ]
    return joined(
        [
            '<section id="right" aria-label="what it means">',
            element("div", {"id": "tabs", "role": "tablist"}, *tabs),
            '<p id="stale" role="status" hidden></p>',
            '<div id="view-graph" role="tabpanel" aria-labelledby="tab-graph"></div>',
            '<div id="view-explain" role="tabpanel" aria-labelledby="tab-explain" tabindex="0" hidden></div>',
            '<div id="view-timeline" role="tabpanel" aria-labelledby="tab-timeline" tabindex="0" '
            "hidden></div>",
            '<div id="view-source" role="tabpanel" aria-labelledby="tab-source" tabindex="0" hidden></div>',
            "</section>",
        ]
    )


def _asset(name: str) -> str:
    return files("nldsl.studio").joinpath("web", name).read_text(encoding="utf-8")
