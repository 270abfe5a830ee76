"""Lines of a formatted text, and the columns that neighbouring lines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

WIDTH = 120
"""Columns of a line; longer statements are broken before clauses and inside brackets."""

_SPREAD = {"assign": 12, "group": 32, "level": 24}
"""Cells of one column are aligned if their lengths differ by no more than this."""
_COMMENT_SPREAD = 48


@dataclass
class Line:
    """One line: its cells, which line up with those of neighbours of the same kind, and its comment."""

    indent: int
    cells: tuple[str, ...]
    kind: str = ""
    comment: str = ""

    @property
    def text(self) -> str:
        """The line without its comment, cells one space apart."""
        return "  " * self.indent + " ".join(self.cells) if any(self.cells) else ""


def layout(lines: list[Line]) -> list[str]:
    """The lines as text: `=`, `<-`, `by` and comments of neighbouring lines one below the other."""
    texts: list[str] = []
    for run in _runs(lines, lambda line: (line.kind, line.indent) if line.kind else None):
        texts += _aligned(run)
    found: list[str] = []
    pairs = iter(texts)
    for run in _runs(lines, _comment_key):
        found += _commented([(next(pairs), line.comment) for line in run])
    return found


def _comment_key(line: Line) -> object:
    """Comments of statements line up; those behind `{` belong to the header alone."""
    return line.indent if line.comment and line.cells and not line.cells[-1].endswith("{") else None


def _runs(lines: list[Line], key: Callable[[Line], object]) -> Iterator[list[Line]]:
    """Neighbours with the same key together, those without one alone."""
    for value, group in groupby(lines, key):
        members = list(group)
        yield from [members] if value is not None else [[line] for line in members]


def _aligned(run: list[Line]) -> list[str]:
    plain = [line.text for line in run]
    columns = len(run[0].cells)
    if len(run) < 2 or columns < 2 or any(len(line.cells) != columns for line in run):
        return plain
    cells = [list(line.cells) for line in run]
    for column in range(columns - 1):
        widths = [len(row[column]) for row in cells]
        if max(widths) - min(widths) > _SPREAD[run[0].kind]:
            return plain
        for row in cells:
            sign = run[0].kind == "assign" and column == 1
            row[column] = row[column].rjust(max(widths)) if sign else row[column].ljust(max(widths))
    padded = ["  " * run[0].indent + " ".join(row) for row in cells]
    return padded if max(map(len, padded)) <= WIDTH else plain


def _commented(pairs: list[tuple[str, str]]) -> list[str]:
    widths = [len(text) for text, _ in pairs]
    wide = max(widths) - min(widths) > _COMMENT_SPREAD
    found = []
    for text, comment in pairs:
        pad = "  " if wide else " " * (max(widths) - len(text) + 2)
        found.append(f"{text}{pad}{comment}" if comment else text)
    return found
