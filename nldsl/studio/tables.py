"""An explanation as tables of words: what the page shows beside the picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nldsl.view.explain import Explanation, LevelRow
from nldsl.view.words import spoken_count, spoken_flops, spoken_state


def tables(explanation: Explanation) -> Iterator[dict[str, Any]]:
    """`{title note columns rows}`; a row is `{id cells}`, `id` the problem it is about."""
    cost = explanation.cost
    heading = [
        f"{spoken_count(cost.parameters)} parameters",
        f"state {spoken_state(cost.state_bytes(), 4 * cost.state_per_token) or 'none'}",
        f"decode {spoken_flops(cost.decode) or '0'} FLOPs per token",
        f"training {spoken_flops(cost.training) or '0'}",
    ]
    yield _table(explanation.name, " · ".join(heading), (), ())
    for level in reversed(explanation.levels):
        yield _level(level)
    rows = [("", (d.name, "\n".join(f.text for f in d.formulas), d.known_as)) for d in explanation.equations]
    if rows:
        ids = [d.id for d in explanation.equations]
        shown = [(id, cells) for id, (_, cells) in zip(ids, rows, strict=True)]
        yield _table("Updates, as derived", "", ("memory", "update", "known as"), shown)
    chosen = [("", (r.unit, r.memories, r.lowering, r.reason)) for r in explanation.lowerings]
    if chosen:
        yield _table("How it is computed", "", ("block", "memories", "lowering", "because"), chosen)
    for reason in explanation.unsupported:
        yield _table("Not compiled yet", reason, (), ())
    parameters = [
        ("", (p.path, " × ".join(map(str, p.shape)), p.role, p.trained_by or "nobody here"))
        for p in explanation.parameters[:400]
    ]
    if parameters:
        yield _table("Parameters", "", ("path", "shape", "role", "trained by"), parameters)


def _level(level: LevelRow) -> dict[str, Any]:
    rows = []
    for p in level.problems:
        held = spoken_count(p.parameters) if p.parameters else spoken_state(p.state_bytes, p.bytes_per_token)
        cells = (p.name, p.block.rpartition(".")[2], p.map, p.objective, p.rule, held, spoken_flops(p.decode))
        rows.append((p.id, cells))
    names = ", ".join(level.names)
    columns = ("problem", "block", "map", "objective", "rule", "size", "FLOPs")
    title = f"Level {level.number}, {level.clock}" + (f": {names}" if names else "")
    return _table(title, level.reason.replace("`", ""), columns, rows)


def _table(title: str, note: str, columns: tuple[str, ...], rows: Any) -> dict[str, Any]:
    shown = [{"id": id, "cells": [str(cell) for cell in cells]} for id, cells in rows]
    return {"title": title, "note": note, "columns": list(columns), "rows": shown}
