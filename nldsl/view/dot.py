"""The level graph as DOT text, and as PNG or PDF where graphviz's `dot` is installed."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import graphviz

from nldsl.diagnostics import Diagnostic, SpecError
from nldsl.graph import LevelGraph, Port, Problem
from nldsl.view.boxes import box_lines
from nldsl.view.theme import LIGHT, role

_FONT = "Helvetica"


def draw_dot(graph: LevelGraph) -> str:
    """The DOT text: a cluster per level, edges coloured by transfer."""
    return str(_digraph(graph).source)


def render_dot(graph: LevelGraph, form: Literal["png", "pdf"]) -> bytes:
    """The picture as graphviz lays it out.

    Raises:
        SpecError: NL1020 if there is no `dot`, NL1021 if it fails.
    """
    if shutil.which("dot") is None:
        raise SpecError([_lacking(form)])
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"graph.{form}"
        try:
            _digraph(graph).render(outfile=path, quiet=True)
            return path.read_bytes()
        except (graphviz.CalledProcessError, OSError) as wrong:
            reason = str(wrong).splitlines()[0]
            raise SpecError([Diagnostic("NL1021", f"`dot` could not draw the graph: {reason}")]) from wrong


def _lacking(form: str) -> Diagnostic:
    return Diagnostic(
        "NL1020",
        f"`{form}` needs the program `dot` of graphviz, which is not installed",
        help="install graphviz (apt or brew: `graphviz`), or draw `svg` or `html`, which need nothing",
    )


def _digraph(graph: LevelGraph) -> graphviz.Digraph:
    dot = graphviz.Digraph(graph.name)
    dot.attr(rankdir="TB", fontname=_FONT, newrank="true", nodesep="0.35", ranksep="0.7", compound="true")
    dot.attr("node", fontname=_FONT, fontsize="11", shape="box", style="rounded,filled", margin="0.14,0.08")
    dot.attr("edge", fontname=_FONT, fontsize="9", arrowsize="0.7")
    for index, level in enumerate(reversed(graph.levels)):
        with dot.subgraph(name=f"cluster_{index}") as part:
            shade = LIGHT["band-a" if index % 2 == 0 else "band-b"]
            title = _escaped(f"Level {level.number}: {level.frequency}")
            part.attr(label=title, labeljust="l", style="filled", color=shade, fillcolor=shade, fontsize="12")
            for id in level.problems:
                _node(part, graph.problem(id))
    for port in graph.ports:
        _port(dot, port)
    for t in graph.transfers:
        style = "dashed" if t.wraps else "solid"
        label = _escaped(", ".join(t.carries))
        dot.edge(
            _name(t.source),
            _name(t.target),
            color=LIGHT[t.kind],
            fontcolor=LIGHT[t.kind],
            label=label,
            style=style,
        )
    return dot


def _node(part: graphviz.Digraph, problem: Problem) -> None:
    kind = role(problem.kind)
    times = f" ×{problem.multiplicity}" if problem.multiplicity > 1 else ""
    label = _escaped("\n".join([problem.name + times, *box_lines(problem)]))
    shape = {"slow parameters": "filled", "optimiser memory": "rounded,filled,dashed"}
    style = shape.get(problem.kind, "rounded,filled")
    part.node(_name(problem.id), label, fillcolor=LIGHT[kind], color=LIGHT[f"{kind}-edge"], style=style)


def _port(dot: graphviz.Digraph, port: Port) -> None:
    colours = {"fillcolor": LIGHT["port"], "fontcolor": LIGHT["port-ink"]}
    dot.node(_name(port.id), _escaped(port.name), shape="box", style="rounded,filled", **colours)


def _name(id: str) -> str:
    """A node name without `:`, which DOT would read as a port."""
    return id.replace(":", "/")


def _escaped(text: str) -> str:
    return str(graphviz.escape(text)).replace("\n", "\\n")
