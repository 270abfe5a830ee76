"""The level graph in the JSON format of Google's Model Explorer (a `GraphCollection`)."""

from __future__ import annotations

from typing import Any

from nldsl.graph.levels import spoken
from nldsl.graph.model import LevelGraph, Port, Problem, Transfer

_COLOURS = {
    "memory": ("#ffffff", "#3b5bdb"),
    "task memory": ("#ffffff", "#c2410c"),
    "attention": ("#fffdf0", "#9a7200"),
    "slow parameters": ("#e4e8ef", "#55617a"),
    "optimiser memory": ("#ffffff", "#7c8698"),
}
_TOLD = (
    "kind", "level", "objective", "objective_equation", "context", "map", "map_equation", "rule",
    "rule_equation", "retention", "start", "reset", "source",
)  # fmt: skip


def to_model_explorer(graph: LevelGraph) -> dict[str, Any]:
    """One graph of nested blocks: nodes are problems, namespaces the blocks they stand in.

    An edge is labelled with its transfer and what it carries (ids of its two ends).
    """
    incoming: dict[str, list[Transfer]] = {}
    for transfer in graph.transfers:
        incoming.setdefault(transfer.target, []).append(transfer)
    nodes = [_problem(graph, p, incoming.get(p.id, [])) for p in graph.problems]
    nodes += [_port(p, incoming.get(p.id, [])) for p in graph.ports]
    sizes = {frame.id: str(frame.count) for frame in graph.frames}
    attributes = {id.replace(".", "/"): {"copies": count} for id, count in sizes.items()}
    inside = {"id": graph.name, "nodes": nodes, "groupNodeAttributes": attributes}
    return {"label": graph.name, "graphs": [inside]}


def _problem(graph: LevelGraph, problem: Problem, incoming: list[Transfer]) -> dict[str, Any]:
    told = {name.replace("_", " "): getattr(problem, name) for name in _TOLD}
    told["clock"] = spoken(problem.clock)
    told["level number"] = graph.level_of(problem.id).number
    sizes = ("copies", "multiplicity", "parameters", "state_bytes", "bytes_per_token")
    told |= {name.replace("_", " "): str(getattr(problem, name)) for name in sizes if getattr(problem, name)}
    told |= {f"shape of {t.name}": " x ".join(map(str, t.shape)) for t in problem.tensors}
    fill, edge = _COLOURS[problem.kind]
    return {
        "id": problem.id,
        "label": problem.name,
        "namespace": "" if problem.zone == graph.name else problem.zone.replace(".", "/"),
        "attrs": [{"key": key, "value": value} for key, value in told.items() if value],
        "incomingEdges": _edges(incoming),
        "outputsMetadata": [],
        "style": {"backgroundColor": fill, "borderColor": edge},
    }


def _port(port: Port, incoming: list[Transfer]) -> dict[str, Any]:
    return {
        "id": port.id,
        "label": port.name,
        "namespace": "",
        "attrs": [{"key": "kind", "value": port.kind}],
        "incomingEdges": _edges(incoming),
        "outputsMetadata": [],
    }


def _edges(incoming: list[Transfer]) -> list[dict[str, str]]:
    found = []
    for t in incoming:
        carried = f" ({', '.join(t.carries)})" if t.carries else ""
        words = f"{t.kind}{carried}{' to the next copy' if t.wraps else ''}"
        found.append({"sourceNodeId": t.source, "sourceNodeOutputId": words, "targetNodeInputId": words})
    return found
