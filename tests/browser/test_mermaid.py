"""Mermaid itself draws what is exported to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nldsl.graph import graph_of
from nldsl.graph.mermaid import to_mermaid
from tests.browser.chrome import Chrome
from tests.unit.npm import node_modules

PAGE = """<script src="{script}"></script>
<script>mermaid.initialize({{ startOnLoad: false, securityLevel: "strict" }})</script>
"""


@pytest.mark.long
def test_mermaid_draws_every_problem_and_transfer(chrome: Chrome, tmp_path: Path) -> None:
    modules = node_modules(tmp_path, "mermaid@11")
    (tmp_path / "page.html").write_text(
        PAGE.format(script=(modules / "mermaid" / "dist" / "mermaid.min.js").as_uri())
    )
    chrome.open((tmp_path / "page.html").as_uri())
    chrome.wait("!!window.mermaid")
    for name in ("hope", "hope_attention", "transformer", "gated_deltanet"):
        graph = graph_of(name)
        within = [(t.source, t.target) for t in graph.transfers if not t.wraps]
        apart = [pair for pair in within if pair[0] != pair[1]]
        drawn = chrome.run(f"mermaid.render('drawn', {json.dumps(to_mermaid(graph))}).then((r) => r.svg)")
        counts = chrome.run(
            f"(() => {{ const d = new DOMParser().parseFromString({json.dumps(drawn)}, 'text/html');"
            " return ['.node', '.cluster', '.flowchart-link'].map((s) => d.querySelectorAll(s).length); })()"
        )
        assert counts == [
            len(graph.problems) + len(graph.ports),
            len(graph.levels),
            len(apart) + len(set(within) - set(apart)),
        ]
        assert all(p.name in drawn for p in graph.problems)
