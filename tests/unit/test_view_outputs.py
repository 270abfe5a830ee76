"""SVG, HTML, DOT and the explanation: valid, complete, self-contained, and safe with any name."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from io import StringIO
from xml.etree import ElementTree

import pytest
from rich.console import Console

from nldsl.diagnostics import SpecError
from nldsl.graph import TRANSFERS, LevelGraph, build_graph, graph_of
from nldsl.view import dot as dot_module
from nldsl.view import draw_dot, draw_html, draw_svg, explain, lay_out, render_dot, render_explanation
from nldsl.view.geometry import Layout
from nldsl.view.svg import element, rounded, text
from nldsl.view.table import spoken_bytes
from nldsl.view.theme import DARK, LIGHT
from tests.unit import handmade as h

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "</script><script>alert(1)</script>\"'&<b>\x01"


@pytest.fixture(scope="module")
def hope() -> LevelGraph:
    return graph_of("hope")


@pytest.fixture(scope="module")
def layout(hope: LevelGraph) -> Layout:
    return lay_out(hope)


def evil() -> LevelGraph:
    body = [h.linear("k", "x"), h.linear("eta", "x"), h.write(EVIL, "k", "k"), h.read("y", EVIL, "k")]
    return build_graph(h.only(h.block(EVIL, [h.memory(EVIL, level=EVIL)], body)))


def test_svg_is_xml_with_every_problem_and_transfer(hope: LevelGraph, layout: Layout) -> None:
    root = ElementTree.fromstring(draw_svg(layout))
    nodes = {g.get("data-id") for g in root.iter(f"{SVG}g") if "node" in (g.get("class") or "").split()}
    assert nodes == {p.id for p in (*hope.problems, *hope.ports)}
    nets = [g for g in root.iter(f"{SVG}g") if "net" in (g.get("class") or "").split()]
    assert len(nets) == len(layout.routes)


def test_the_legend_names_all_five_transfers_and_every_kind_of_box(hope: LevelGraph, layout: Layout) -> None:
    root = ElementTree.fromstring(draw_svg(layout))
    assert {g.get("data-legend") for g in root.iter() if g.get("data-legend")} == set(TRANSFERS)
    assert {e.sample for e in layout.legend if e.what == "box"} == {p.kind for p in hope.problems}


def test_the_picture_says_levels_clocks_and_repeats(layout: Layout) -> None:
    words = " ".join(ElementTree.fromstring(draw_svg(layout)).itertext())
    for expected in ("Level 4", "every 16 tokens", "blocks ×4", "self_modifying_titans", "F[2]", "4 heads"):
        assert expected in words


def test_edges_are_coloured_by_transfer(layout: Layout) -> None:
    root = ElementTree.fromstring(draw_svg(layout))
    for group in root.iter(f"{SVG}g"):
        kind = group.get("data-kind")
        if kind:
            assert {p.get("stroke") for p in group.iter(f"{SVG}path")} == {LIGHT[kind]}


def test_text_of_a_spec_cannot_leave_its_element() -> None:
    root = ElementTree.fromstring(draw_svg(lay_out(evil())))
    assert not list(root.iter(f"{SVG}script"))
    page = draw_html(evil())
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "alert(1)</script>" not in page


def test_the_page_loads_nothing(hope: LevelGraph) -> None:
    class Loads(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            for name, value in attributes:
                if name in ("src", "href", "xlink:href", "action", "data"):
                    self.found.append(f"{tag} {name}={value}")

    page = draw_html(hope)
    Loads().feed(page)
    assert Loads.found == []
    outside = re.sub(r'xmlns="[^"]*"', "", page)
    assert "http://" not in outside and "https://" not in outside and "@import" not in outside
    assert not re.search(r"url\((?!#)", outside)


def test_the_page_carries_the_graph_and_both_themes(hope: LevelGraph) -> None:
    page = draw_html(hope)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    told = json.loads(data[1])
    assert len(told["graph"]["problems"]) == len(hope.problems)
    assert {b["id"] for b in told["scene"]["boxes"]} >= {p.id for p in hope.problems}
    assert all(net["sentence"].endswith(".") for net in told["scene"]["nets"])
    assert "prefers-color-scheme: dark" in page
    assert LIGHT.keys() == DARK.keys()


def test_every_class_of_the_picture_has_a_colour(layout: Layout) -> None:
    used = set(
        re.findall(r"(?:fill|stroke)-([a-z-]+)", " ".join(re.findall(r'class="([^"]*)"', draw_svg(layout))))
    )
    assert used - {"none"} <= LIGHT.keys()


def test_dot_has_a_cluster_per_level_and_an_edge_per_transfer(hope: LevelGraph) -> None:
    source = draw_dot(hope)
    assert source.count("subgraph") == len(hope.levels)
    assert source.count("->") == len(hope.transfers)


def test_dot_text_is_escaped() -> None:
    assert "digraph" in draw_dot(evil())


def test_without_dot_the_error_says_what_to_do(hope: LevelGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dot_module.shutil, "which", lambda name: None)
    with pytest.raises(SpecError) as caught:
        render_dot(hope, "png")
    found = caught.value.diagnostics[0]
    assert found.code == "NL1020"
    assert "graphviz" in found.help and "svg" in found.help


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz's `dot` is not installed")
def test_dot_draws_png_and_pdf() -> None:
    graph = build_graph(h.only(h.layer()))
    assert render_dot(graph, "png").startswith(b"\x89PNG")
    assert render_dot(graph, "pdf").startswith(b"%PDF")
    assert render_dot(evil(), "png").startswith(b"\x89PNG")


def test_xml_helpers() -> None:
    assert element("a", {"stroke_width": 1.25}) == '<a stroke-width="1.2"/>'
    assert text("a<b & c\x00") == "a&lt;b &amp; c?"
    assert rounded([(0, 0), (10, 0), (10, 10)], 4) == "M0 0L6 0Q10 0 10 4L10 10"


def test_explanation_counts_and_names_who_trains_what() -> None:
    found = explain("hope", dim=32, heads=2, depth=2)
    assert found.parameter_count == found.cost.parameters
    trained = {row.path: row.trained_by for row in found.parameters}
    assert trained["blocks[1].self_modifying_titans.q.linear.weight"] == "muon(lr = 0.02)"
    assert trained["x.embed.weight"] == "adamw(lr = 0.0003)"
    assert json.loads(json.dumps(found.to_json()))["levels"][-1]["clock"] == "every 16 tokens"


def test_explanation_as_text_says_what_matters() -> None:
    console = Console(width=160, record=True, file=StringIO())
    console.print(render_explanation(explain("hope", dim=32, heads=2), parameters=True))
    shown = console.export_text()
    for expected in (
        "every 16 tokens",
        "residual_mlp: dot by dgd",
        "transfers",
        "blocks[0..3].cms.F[2].W1",
    ):
        assert expected in shown


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 30, "3.0 GiB")]
)
def test_sizes_in_words(count: int, words: str) -> None:
    assert spoken_bytes(count) == words
