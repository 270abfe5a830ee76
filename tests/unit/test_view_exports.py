"""What other tools read: Mermaid and the JSON of Google's Model Explorer."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nldsl.cli.app import main
from nldsl.graph import LevelGraph, graph_of
from nldsl.graph.mermaid import to_mermaid
from nldsl.graph.model_explorer import to_model_explorer

SPECS = ("hope", "hope_attention", "transformer", "gated_deltanet", "hope_tiny")


def _closed(**properties: Any) -> dict[str, Any]:
    """An object with these properties and no others; those that end in `_` may be left out."""
    names = {name.removesuffix("_"): schema for name, schema in properties.items()}
    needed = [name for name in properties if not name.endswith("_")]
    return {"type": "object", "properties": names, "required": needed, "additionalProperties": False}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


# `graph_builder.py` of ai-edge-model-explorer 0.1.34, field by field; what nldsl never writes is left out.
WORD: dict[str, Any] = {"type": "string"}
COLOUR = {"type": "string", "pattern": "^#[0-9a-f]{6}$"}
PAIRS = _list(_closed(key=WORD, value=WORD))
EDGE = _closed(sourceNodeId=WORD, sourceNodeOutputId_=WORD, targetNodeInputId_=WORD)
NODE = _closed(
    id=WORD,
    label=WORD,
    namespace_=WORD,
    attrs_=PAIRS,
    incomingEdges_=_list(EDGE),
    outputsMetadata_=_list(_closed(id=WORD, attrs_=PAIRS)),
    style_=_closed(backgroundColor_=COLOUR, borderColor_=COLOUR),
)
ATTRIBUTES = {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": WORD}}
COLLECTION = _closed(
    label=WORD, graphs=_list(_closed(id=WORD, nodes=_list(NODE), groupNodeAttributes_=ATTRIBUTES))
)

# The part of Mermaid's flowcharts that is used: https://mermaid.js.org/syntax/flowchart.html
TEXT = r'"[\w .,:;=()+*/\[\]·×∞<>#-]*"'
FLOWCHART = {
    "comment": re.compile(r"^%% [^\n{]*$"),
    "begin": re.compile(r"^flowchart TB$"),
    "subgraph": re.compile(rf"^  subgraph level\d+\[{TEXT}\]$"),
    "end": re.compile(r"^  end$"),
    "node": re.compile(rf"^    (n\d+)(\({TEXT}\)|\[{TEXT}\])$"),
    "port": re.compile(rf"^  (n\d+)\(\[{TEXT}\]\)$"),
    "edge": re.compile(rf"^  (n\d+) (-->|==>|-\.->)(\|{TEXT}\|)? (n\d+)$"),
    "link": re.compile(r"^  linkStyle (\d+(?:,\d+)*) stroke:#[0-9a-f]{6}$"),
    "class": re.compile(r"^  (classDef \w+ [\w:#,. -]+|class n\d+(,n\d+)* \w+)$"),
}


@pytest.fixture(params=SPECS)
def graph(request: pytest.FixtureRequest) -> LevelGraph:
    return graph_of(request.param)


def read(line: str) -> tuple[str, re.Match[str]]:
    """What a line of a flowchart is."""
    for kind, pattern in FLOWCHART.items():
        if found := pattern.match(line):
            return kind, found
    raise AssertionError(f"no line of a flowchart: {line}")


def test_model_explorer_reads_it(graph: LevelGraph) -> None:
    found = to_model_explorer(graph)
    jsonschema.validate(found, COLLECTION)
    (inside,) = found["graphs"]
    ids = [node["id"] for node in inside["nodes"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {p.id for p in graph.problems} | {p.id for p in graph.ports}
    edges = [(e["sourceNodeId"], n["id"]) for n in inside["nodes"] for e in n["incomingEdges"]]
    assert sorted(edges) == sorted((t.source, t.target) for t in graph.transfers)


def test_groups_of_model_explorer_exist() -> None:
    (inside,) = to_model_explorer(graph_of("hope"))["graphs"]
    spaces = {node["namespace"] for node in inside["nodes"]}
    assert "blocks[*]/self_modifying_titans" in spaces
    # A group is known by its path; the attributes of one that no node stands in would never be seen.
    for group in inside["groupNodeAttributes"]:
        assert any(space == group or space.startswith(f"{group}/") for space in spaces)
    assert inside["groupNodeAttributes"]["blocks[*]"] == {"copies": "4"}


def test_mermaid_reads_it(graph: LevelGraph) -> None:
    lines = [read(line) for line in to_mermaid(graph).splitlines()]
    kinds = [kind for kind, _ in lines]
    assert kinds[:2] == ["comment", "begin"] and kinds.count("subgraph") == kinds.count("end")
    assert kinds.count("subgraph") == len(graph.levels)
    names = [found[1] for kind, found in lines if kind in ("node", "port")]
    assert len(names) == len(set(names)) == len(graph.problems) + len(graph.ports)
    edges = [found for kind, found in lines if kind == "edge"]
    within = [(t.source, t.target) for t in graph.transfers if not t.wraps]
    apart = [pair for pair in within if pair[0] != pair[1]]
    assert len(edges) == len(apart) + len(set(within) - set(apart))
    assert {end for found in edges for end in (found[1], found[4])} <= set(names)
    # Links are styled by their place in the text, each once.
    styled = [int(n) for kind, found in lines if kind == "link" for n in found[1].split(",")]
    assert sorted(styled) == list(range(len(edges)))


def test_mermaid_text_cannot_end_its_quotes() -> None:
    graph = graph_of("transformer")
    hostile = replace(graph, ports=tuple(replace(p, name='a"] --> b{{<script>') for p in graph.ports))
    for line in to_mermaid(hostile).splitlines():
        read(line)
    assert "<script>" not in to_mermaid(hostile)


@pytest.mark.parametrize(("ending", "start"), [("mmd", "%% Levels of hope"), ("model-explorer.json", "{")])
def test_the_ending_chooses_the_form(tmp_path: Path, ending: str, start: str) -> None:
    out = tmp_path / f"x.{ending}"
    with pytest.raises(SystemExit) as leaving:
        main(["graph", "hope", "-o", str(out)])
    assert leaving.value.code == 0
    text = out.read_text()
    assert text.startswith(start)
    if ending != "mmd":
        jsonschema.validate(json.loads(text), COLLECTION)
