"""The level graph as a Mermaid flowchart, for places that draw Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from nldsl.graph.model import LevelGraph, Problem, Transfer

_LINES: dict[str, tuple[str, str]] = {
    "condition": ("-->", "#1c6fd1"),
    "non-parametric": ("==>", "#b88700"),
    "backpropagate": ("-.->", "#d6336c"),
    "initialise": ("-.->", "#2b8a3e"),
    "generate": ("-->", "#7a3fd0"),
}
_BOXES = {
    "memory": "fill:#ffffff,stroke:#3b5bdb,color:#17202e",
    "task memory": "fill:#ffffff,stroke:#c2410c,color:#17202e",
    "attention": "fill:#fffdf0,stroke:#9a7200,color:#17202e",
    "slow parameters": "fill:#e4e8ef,stroke:#55617a,color:#17202e",
    "optimiser memory": "fill:#ffffff,stroke:#7c8698,color:#17202e,stroke-dasharray:5 3",
}
_UNSAFE = re.compile(r"[^\w .,:;=()+*/\[\]·×∞-]", re.ASCII)


def to_mermaid(graph: LevelGraph) -> str:
    """A subgraph per level, the fastest at the top, an edge per transfer.

    Between copies of a block nothing is drawn: that it is repeated stands in its box.

    Example:
        >>> from nldsl.graph import graph_of
        >>> to_mermaid(graph_of("transformer")).splitlines()[1].strip()
        'flowchart TB'
    """
    names = {
        id: f"n{i}" for i, id in enumerate([*(p.id for p in graph.problems), *(p.id for p in graph.ports)])
    }
    lines = [f"%% Levels of {_plain(graph.name)}", "flowchart TB"]
    for index, level in enumerate(reversed(graph.levels)):
        lines.append(f'  subgraph level{index}["Level {level.number}: {_text(level.frequency)}"]')
        lines += [f"    {names[id]}{_node(graph.problem(id))}" for id in level.problems]
        lines.append("  end")
    lines += [f'  {names[port.id]}(["{_text(port.name)}"])' for port in graph.ports]
    drawn = list(_drawn(graph))
    lines += [f"  {_edge(t, names)}" for t in drawn]
    for kind, (_, colour) in _LINES.items():
        numbers = [str(i) for i, t in enumerate(drawn) if t.kind == kind]
        if numbers:
            lines.append(f"  linkStyle {','.join(numbers)} stroke:{colour}")
    for kind, style in _BOXES.items():
        members = [names[p.id] for p in graph.problems if p.kind == kind]
        if members:
            lines += [f"  classDef {_class(kind)} {style}", f"  class {','.join(members)} {_class(kind)}"]
    return "\n".join(lines) + "\n"


def _drawn(graph: LevelGraph) -> Iterator[Transfer]:
    """Transfers within a copy; of those from a problem to itself one, since Mermaid draws no more."""
    loops: dict[str, Transfer] = {}
    for t in graph.transfers:
        if t.source == t.target and not t.wraps:
            before = loops.get(t.source, replace(t, carries=()))
            told = tuple(f"{word} ({t.kind})" for word in t.carries or ("something",))
            loops[t.source] = replace(before, carries=(*before.carries, *told))
        elif not t.wraps:
            yield t
    yield from loops.values()


def _node(problem: Problem) -> str:
    what = " · ".join(part for part in (problem.map, problem.objective) if part)
    times = [f"{problem.copies} heads" if problem.copies > 1 else ""]
    times.append(f"×{problem.multiplicity}" if problem.multiplicity > 1 else "")
    parts = (problem.name, what, " ".join(t for t in times if t), problem.zone)
    words = "<br/>".join(_text(part) for part in parts if part)
    return f'["{words}"]' if problem.kind in ("slow parameters", "optimiser memory") else f'("{words}")'


def _edge(transfer: Transfer, names: dict[str, str]) -> str:
    arrow = _LINES[transfer.kind][0]
    words = f'|"{_text(", ".join(transfer.carries))}"|' if transfer.carries else ""
    return f"{names[transfer.source]} {arrow}{words} {names[transfer.target]}"


def _class(kind: str) -> str:
    return kind.replace(" ", "_")


def _text(words: str) -> str:
    """Signs that mean something to Mermaid, or to the page around it, as its entities."""
    return _UNSAFE.sub(lambda m: f"#{ord(m[0])};" if ord(m[0]) > 31 else " ", words)


def _plain(words: str) -> str:
    return " ".join(words.split())
