"""A layout as plain data, so that a page can fold columns and say what an edge means."""

from __future__ import annotations

from typing import Any

from nldsl.graph import LevelGraph, Problem
from nldsl.graph.levels import spoken
from nldsl.view.geometry import Layout, Net, Rect, Route

_MOST_NAMED = 3


def scene(layout: Layout, graph: LevelGraph) -> dict[str, Any]:
    """The geometry of a layout.

    ```
    canvas  [w, h]
    bands   [{level rect}]
    columns [{id label rect header frames}]
    frames  [{id label count rect}]
    boxes   [{id rect zone}]
    nets    [{kind status sources targets sentence junctions [{y ends [[x y member arrow]]}]}]
    ```
    Rectangles are `[x, y, w, h]`.
    """
    zones = {p.id: p.zone for p in graph.problems}
    return {
        "canvas": [round(layout.canvas.w, 1), round(layout.canvas.h, 1)],
        "bands": [
            {"level": b.level.number, "rect": _rect(b.rect), "label": _rect(b.label)} for b in layout.bands
        ],
        "columns": [
            {
                "id": c.zone.id,
                "label": c.zone.label,
                "rect": _rect(c.rect),
                "header": _rect(c.header),
                "frames": list(c.zone.frames),
            }
            for c in layout.columns
        ],
        "frames": [{"id": f.frame.id, "count": f.frame.count, "rect": _rect(f.rect)} for f in layout.frames],
        "boxes": [
            {"id": b.item.id, "rect": _rect(b.rect), "zone": zones.get(b.item.id, "")} for b in layout.boxes
        ],
        "nets": [_net(route, graph) for route in layout.routes],
    }


def sentence(net: Net, graph: LevelGraph) -> str:
    """What a bus of transfers means, in one sentence."""
    problems = {p.id: p for p in graph.problems}
    sources, targets = _listed(net.sources, problems), _listed(net.targets, problems)
    words = list(dict.fromkeys(word for _, _, carried in net.carries for word in carried))
    carried = _and(words) or "something"
    match net.kind:
        case "condition":
            held = "hold" if len(net.sources) > 1 else "holds"
            return f"What {sources} {held} feeds the forward pass of {targets}, as {carried}."
        case "non-parametric":
            return f"What {sources} found in its context feeds {targets}, as {carried}."
        case "backpropagate":
            rates = _rates(net, problems)
            return f"One gradient flow: the {carried} goes back from {sources} to {targets}{rates}."
        case "initialise":
            learns = "learn" if len(net.sources) > 1 else "learns"
            return f"{sources[:1].upper()}{sources[1:]} {learns} where {targets} start."
        case "generate":
            makes = "make" if len(net.sources) > 1 else "makes"
            return f"{sources[:1].upper()}{sources[1:]} {makes} the {carried} of {targets}."


def _rates(net: Net, problems: dict[str, Problem]) -> str:
    """How often both ends move, if each end has one clock."""
    ends = [{spoken(problems[i].clock) for i in ids if i in problems} for ids in (net.sources, net.targets)]
    if any(len(end) != 1 for end in ends):
        return ""
    first, second = (next(iter(end)) for end in ends)
    return f"; the one moves {first}, the other {second}" if first != second else ""


def _listed(ids: tuple[str, ...], problems: dict[str, Problem]) -> str:
    names = [_called(id, problems) for id in ids]
    more = len(names) - _MOST_NAMED
    return _and(names) if more <= 1 else f"{', '.join(names[:_MOST_NAMED])} and {more} more"


def _called(id: str, problems: dict[str, Problem]) -> str:
    problem = problems.get(id)
    if problem is None:
        return f"the input `{id.removeprefix('input:')}`" if id.startswith("input:") else "the output"
    if problem.kind == "slow parameters":
        return f"the slow parameters of {problem.zone.rpartition('.')[2]}"
    return problem.name


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _net(route: Route, graph: LevelGraph) -> dict[str, Any]:
    junctions = [
        {"y": round(j.y, 1), "ends": [[round(e.x, 1), round(e.y, 1), e.member, e.arrow] for e in j.ends]}
        for j in route.junctions
    ]
    return {
        "kind": route.net.kind,
        "status": route.net.status,
        "sources": list(route.net.sources),
        "targets": list(route.net.targets),
        "sentence": sentence(route.net, graph),
        "junctions": junctions,
    }


def _rect(rect: Rect) -> list[float]:
    return [round(value, 1) for value in (rect.x, rect.y, rect.w, rect.h)]
