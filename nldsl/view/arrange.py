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

_SWEEPS, _MANY_NETS = 12, 150


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
    sweeper = _Sweeper(rows, nets)
    best, least = tuple(rows), sweeper.crossings()
    for sweep in range(_SWEEPS if len(nets) <= _MANY_NETS else 2):
        if least == 0:
            break
        for index in range(len(rows)) if sweep % 2 == 0 else reversed(range(len(rows))):
            sweeper.reorder(index)
        crossings = sweeper.crossings()
        if crossings < least:
            best, least = tuple(sweeper.rows), crossings
    return best


class _Sweeper:
    """Rows that are put in order one at a time, and where every box stands meanwhile.

    Places are counted per column, so that columns line up over all rows.
    """

    def __init__(self, rows: Sequence[Row], nets: Sequence[Net]) -> None:
        self.rows, self.nets = list(rows), nets
        self.row_of = {id: i for i, row in enumerate(rows) for id in row.items}
        self.place: dict[str, float] = {}
        self.nets_of: dict[str, list[Net]] = {id: [] for id in self.row_of}
        for net in nets:
            for member in net.members:
                self.nets_of[member].append(net)
        for index in range(len(self.rows)):
            self._locate(index)

    def _locate(self, index: int) -> None:
        for column, cell in enumerate(self.rows[index].cells):
            for i, id in enumerate(cell):
                self.place[id] = column * (MOST_PER_ROW + 1) + MOST_PER_ROW * (i + 1) / (len(cell) + 1)

    def reorder(self, index: int) -> None:
        """Every box of a row goes to the middle of what it is wired to in other rows."""
        row = self.rows[index]
        wanted = {id: self._barycentre(id) for id in row.items}
        cells = tuple(tuple(sorted(cell, key=lambda id: wanted[id])) for cell in row.cells)
        self.rows[index] = Row(row.level, cells)
        self._locate(index)

    def _barycentre(self, id: str) -> float:
        row = self.row_of[id]
        others = [self.place[m] for net in self.nets_of[id] for m in net.members if self.row_of[m] != row]
        return sum(others) / len(others) if others else self.place[id]

    def crossings(self) -> int:
        """How many straight lines between neighbouring members of nets would cross."""
        lines: list[tuple[tuple[int, float], tuple[int, float]]] = []
        for net in self.nets:
            members = sorted((self.row_of[m], self.place[m]) for m in net.members)
            lines.extend((a, b) for a, b in zip(members, members[1:], strict=False) if a[0] != b[0])
        count = 0
        for i, (a, b) in enumerate(lines):
            for c, d in lines[i + 1 :]:
                shared = max(a[0], c[0]) < min(b[0], d[0])
                count += shared and (a[1] - c[1]) * (b[1] - d[1]) < 0
        return count
