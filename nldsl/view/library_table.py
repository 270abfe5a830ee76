"""The memories of the library side by side: one row per memory of every block, all of it derived."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nldsl.diagnostics import SpecError
from nldsl.graph import open_program
from nldsl.spec.loader import standard_library
from nldsl.spec.program import Program, Update
from nldsl.view.explain import Explanation, explain_program

WIDTH = 16
"""Channels that the blocks are elaborated with: nothing in the table depends on it."""

HEADINGS = (
    *("spec", "memory", "name", "source", "objective", "rule", "retention", "clock"),
    *("class", "lowering", "equation"),
)


@dataclass(frozen=True)
class TableRow:
    """One memory of a block, or several that change alike.

    `source` is what the comment above the block cites, `name` what the recurrence is known as, `letter` the
    class of the update (`explain_text.CLASSES`); `lowering` is empty if no compiled form takes the block yet.
    """

    spec: str
    memory: str
    name: str
    source: str
    objective: str
    rule: str
    retention: str
    clock: str
    letter: str
    lowering: str
    equation: str

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `HEADINGS`."""
        return tuple(str(value) for value in asdict(self).values())


def library_table() -> tuple[TableRow, ...]:
    """The memories of every block of the library that needs nothing but a width and two heads.

    Example:
        >>> row = next(r for r in library_table() if r.spec == "kda")
        >>> row.objective, row.rule, row.letter, row.equation
        ('l2', 'gd', 'R', 'S_t = S_{t-1} diag(alpha_t) (I - beta_t k_t k_t^T) + beta_t v_t k_t^T')
    """
    rows: list[TableRow] = []
    for (kind, name), path in sorted(standard_library().index.items()):
        if kind != "block":
            continue
        text = path.read_text(encoding="utf-8")
        found = _explained(name, path, text)
        if found is not None:
            rows += _merged(_rows(*found, source(text, name)))
    return tuple(rows)


def _explained(name: str, path: Path, text: str) -> tuple[Program, Explanation] | None:
    """The block with two heads, or nothing if it needs more than that."""
    header = re.search(rf"^block {name}\(([^)]*)\)", text, re.MULTILINE)
    arguments = {"heads": 2} if header and re.search(r"\bheads\b", header[1]) else {}
    try:
        program = open_program(path, block=name, dim=WIDTH, **arguments)
    except SpecError:
        return None
    return program, explain_program(program)


def _rows(program: Program, found: Explanation, cited: str) -> Iterator[TableRow]:
    """Memories of the block and of those it calls."""
    problems = {p.id: p for level in found.levels for p in level.problems}
    lowerings = {(row.block, m): row.lowering for row in found.lowerings for m in row.memories}
    for row in found.equations:
        problem = problems.get(row.id)
        if problem is None:
            continue
        called = row.block.removeprefix(program.name).strip(".")
        yield TableRow(
            spec=program.name,
            memory=f"{called}.{row.name}" if called else row.name,
            name=row.known_as,
            source=cited,
            objective=problem.objective,
            rule=problem.rule.partition("(")[0],
            retention=", ".join(_retention(program, row.name, problem.retention)) or "none",
            clock=problem.clock,
            letter=row.letter,
            lowering=lowerings.get((row.block, row.name), ""),
            equation="; ".join(f.text for f in row.formulas),
        )


def _retention(program: Program, memory: str, written: str) -> Iterator[str]:
    """The gate of the write, and of a decay that stands above it."""
    if written:
        yield written
    for step in program.root.body:
        if isinstance(step, Update) and step.memory == memory and step.op == "scale":
            yield f"{step.value.name}, first"


def _merged(rows: Iterable[TableRow]) -> list[TableRow]:
    """Memories that differ in their names only, in one row."""
    groups: dict[tuple[str, ...], list[TableRow]] = {}
    for row in rows:
        same = row.equation.replace(row.memory, "M")
        groups.setdefault((*row.cells()[2:-1], same), []).append(row)
    merged = []
    for same_rows in groups.values():
        first = same_rows[0]
        values = asdict(first) | {"memory": ", ".join(r.memory for r in same_rows)}
        merged.append(TableRow(**values))
    return merged


def source(text: str, name: str) -> str:
    """What the comment above block `name` cites: from `Paper:` to the first formula or full stop.

    Example:
        >>> source("# A layer\\n# Paper: Eq. 64; Sun et al. (2023): S' = S.\\nblock f(x) { return x }", "f")
        'Eq. 64; Sun et al. (2023)'
    """
    lines = text[: text.index(f"block {name}(")].splitlines()
    above: list[str] = []
    while lines and lines[-1].startswith("#"):
        above.insert(0, lines.pop().removeprefix("#").strip())
    joined = " ".join(above)
    if "Paper:" not in joined:
        joined = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line[:1] == "#")
    cited = joined.partition("Paper:")[2].strip()
    return re.split(r":|;? see |, read the|\.\s+(?=[A-Z`])|\.$", cited)[0].strip()


def markdown(rows: Iterable[TableRow]) -> str:
    """The table as Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for row in rows:
        *cells, equation = (c.replace("|", "\\|") for c in row.cells())
        lines.append("| " + " | ".join([*cells, f"`{equation}`" if equation else ""]) + " |")
    return "\n".join(lines) + "\n"
