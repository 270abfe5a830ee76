"""Which row and place every box gets: levels are rows, blocks are columns, crossings are few.

A level may take several rows.  A *cell* is a level in a column; only the order inside cells is
free, and sweeps by barycentre choose it: a box goes where the boxes it is wired to are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.graph import LevelGraph, Port, Problem
from nldsl.view.geometry import Net

MOST_PER_ROW = 4
"""Boxes of one cell side by side; more of them go on in the next row."""

PORTS = -1
"""The level index of the row that holds the ports."""

_SWEEPS = 12


@dataclass(frozen=True)
class Row:
    """A row of boxes: `level` indexes the levels of the graph (or is `PORTS`); one cell per column."""

    level: int
    cells: tuple[tuple[str, ...], ...]

    @property
    def items(self) -> tuple[str, ...]:
        """The ids in the row, from left to right."""
        return tuple(id for cell in self.cells for id in cell)


def arrange(graph: LevelGraph, nets: Sequence[Net]) -> tuple[Row, ...]:
    """The rows from top (fastest) to bottom (slowest, then the ports)."""
    zones = [z.id for z in graph.zones]
    problems = {p.id: p for p in graph.problems}
    rows: list[Row] = []
    for index in reversed(range(len(graph.levels))):
        members = [problems[id] for id in graph.levels[index].problems]
        rows.extend(_rows_of(index, members, zones))
    rows.append(Row(PORTS, _port_cells(graph.ports, zones, problems)))
    return _fewest_crossings(rows, nets)


def _rows_of(index: int, members: list[Problem], zones: list[str]) -> list[Row]:
    cells = [[p.id for p in members if p.zone == zone] for zone in zones]
    depth = max(-(-len(cell) // MOST_PER_ROW) for cell in cells)
    split = [_split(cell, depth) for cell in cells]
    return [Row(index, tuple(tuple(part[i]) for part in split)) for i in range(depth)]


def _split(cell: list[str], depth: int) -> list[list[str]]:
    """Cut a cell into `depth` parts: as few rows as it needs, evenly filled, the rest empty."""
    needed = -(-len(cell) // MOST_PER_ROW)
    if needed == 0:
        return [[] for _ in range(depth)]
    size = -(-len(cell) // needed)
    parts = [cell[i * size : (i + 1) * size] for i in range(needed)]
    return parts + [[] for _ in range(depth - needed)]


def _port_cells(
    ports: Sequence[Port], zones: list[str], problems: dict[str, Problem]
) -> tuple[tuple[str, ...], ...]:
    """Inputs below the first column, the output below the last one that is not training."""
    last = max((i for i, z in enumerate(zones) if not _trains(z, problems)), default=0)
    cells: list[list[str]] = [[] for _ in zones]
    for port in ports:
        cells[0 if port.kind == "input" else last].append(port.id)
    return tuple(tuple(cell) for cell in cells)


def _trains(zone: str, problems: dict[str, Problem]) -> bool:
    return any(p.zone == zone and p.kind == "optimiser memory" for p in problems.values())


def _fewest_crossings(rows: list[Row], nets: Sequence[Net]) -> tuple[Row, ...]:
    """Sweep up and down, keep the order with the fewest crossings."""
    best, least = rows, _crossings(rows, nets)
    current = rows
    for sweep in range(_SWEEPS):
        if least == 0:
            break
        indices = range(len(rows)) if sweep % 2 == 0 else reversed(range(len(rows)))
        for index in indices:
            current = [*current[:index], _reordered(current, index, nets), *current[index + 1 :]]
        crossings = _crossings(current, nets)
        if crossings < least:
            best, least = current, crossings
    return tuple(best)


def _positions(rows: list[Row]) -> dict[str, tuple[int, float]]:
    """id -> (row, place): places are counted per column, so that columns line up."""
    places: dict[str, tuple[int, float]] = {}
    for index, row in enumerate(rows):
        for column, cell in enumerate(row.cells):
            for i, id in enumerate(cell):
                places[id] = index, column * (MOST_PER_ROW + 1) + MOST_PER_ROW * (i + 1) / (len(cell) + 1)
    return places


def _reordered(rows: list[Row], index: int, nets: Sequence[Net]) -> Row:
    places = _positions(rows)
    wanted: dict[str, list[float]] = {}
    for net in nets:
        for member in net.members:
            if places[member][0] == index:
                others = [places[m][1] for m in net.members if places[m][0] != index]
                wanted.setdefault(member, []).extend(others)
    middle = {id: sum(xs) / len(xs) for id, xs in wanted.items() if xs}
    row = rows[index]
    cells = tuple(tuple(sorted(cell, key=lambda id: middle.get(id, places[id][1]))) for cell in row.cells)
    return Row(row.level, cells)


def _crossings(rows: list[Row], nets: Sequence[Net]) -> int:
    """How many straight lines between members of nets would cross, nets taken by their outermost ends."""
    places = _positions(rows)
    lines: list[tuple[tuple[int, float], tuple[int, float]]] = []
    for net in nets:
        members = sorted(places[m] for m in net.members)
        lines.extend((a, b) for a, b in zip(members, members[1:], strict=False) if a[0] != b[0])
    count = 0
    for i, (a, b) in enumerate(lines):
        for c, d in lines[i + 1 :]:
            shared = max(a[0], c[0]) < min(b[0], d[0])
            count += shared and (a[1] - c[1]) * (b[1] - d[1]) < 0
    return count
