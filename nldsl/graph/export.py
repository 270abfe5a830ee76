"""The level graph as plain data for JSON."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

from nldsl.graph.levels import spoken
from nldsl.graph.model import LevelGraph

SCHEMA = 1
"""Raised by one whenever a field changes its meaning or goes."""


def to_json(graph: LevelGraph) -> dict[str, Any]:
    """`graph` as dictionaries, lists, strings and numbers.

    ```
    schema     1
    name kind task            of the program
    problems   [{id name kind zone level clock {every unit text} objective objective_equation context map
                 map_equation rule rule_equation retention start reset copies multiplicity
                 tensors [{name shape}] parameters state_bytes bytes_per_token source text}]
    ports      [{id name kind}]            inputs and the output
    transfers  [{source target kind carries [..] wraps}]
    levels     [{number names clock frequency problems [id] reason}]   slowest first
    zones      [{id label frames [id]}]    blocks where they are called
    frames     [{id label count}]          repeats
    parts      [[id]]                      strongly connected memories
    sources    [[file, sha256]]
    ```
    """
    data = {"schema": SCHEMA, **{name: _plain(getattr(graph, name)) for name in _FIELDS}}
    for problem, source in zip(data["problems"], graph.problems, strict=True):
        problem["clock"]["text"] = spoken(source.clock)
    return data


_FIELDS = (
    "name", "kind", "task", "problems", "ports", "transfers", "levels", "zones", "frames", "parts", "sources",
)  # fmt: skip


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(item) for name, item in asdict(value).items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
