"""An explanation for a terminal: heading, levels, equations, lowerings, transfers, parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from nldsl.graph.problems import LIKE_W
from nldsl.view.explain import Explanation, LevelRow, MemoryRow
from nldsl.view.explain_text import equations_text, lowerings_text, parameters_text, transfers_text
from nldsl.view.words import spoken_bytes, spoken_count, spoken_flops, spoken_state

__all__ = ["render_explanation", "render_latex", "spoken_bytes"]

COLUMNS = ("", "map: objective by rule", "state", "parameters", "decode", "training")
_RIGHT = frozenset({2, 3, 4, 5})
_WIDEST = {0: 22, 1: 26}
"""Names and phrases are cut where they would push the numbers off a screen of 100 columns."""


def render_explanation(explanation: Explanation, parameters: bool = False) -> RenderableType:
    """What `nldsl explain` prints; with `parameters` who trains what as well."""
    parts: list[RenderableType] = [_heading(explanation)]
    parts += _section("levels", _levels(explanation.levels))
    parts += _section("equations", equations_text(explanation.equations))
    parts += _section("lowerings", lowerings_text(explanation.lowerings))
    if explanation.not_exported:
        parts += _section("torch.export", [_refused(explanation.not_exported)])
    if explanation.unsupported:
        parts += _section("not compiled yet", [Text(f"  {line}") for line in explanation.unsupported])
    parts += _section("transfers", transfers_text(explanation.transfers))
    if parameters:
        parts += _section("parameters", parameters_text(explanation.parameters))
    return Group(*parts)


def _refused(reason: str) -> Text:
    """What stands against one graph."""
    return Text.assemble("  refused (", ("NL0702", "bold"), f"): {reason}")


def render_latex(explanation: Explanation) -> str:
    """The equations as LaTeX: one `align*` per group of memories that change alike."""
    blocks = []
    groups: dict[tuple[object, ...], list[str]] = {}
    for row in explanation.equations:
        groups.setdefault((row.block, row.formulas, row.where, row.known_as), []).append(row.name)
    for key, names in groups.items():
        block, formulas, where, known = key
        title = f"% {', '.join(names)} of {block}" + (f": {known}" if known else "")
        lines = [f"  {f.latex} \\\\" for f in (*formulas, *where)]  # type: ignore[misc]
        blocks.append("\n".join([title, "\\begin{gather*}", *lines, "\\end{gather*}"]))
    return "\n\n".join(blocks)


def _section(title: str, body: Iterable[RenderableType]) -> list[RenderableType]:
    """A ruled title and what stands below it; nothing if that is empty."""
    inside = list(body)
    if not inside:
        return []
    return [Rule(Text(title, style="bold"), align="left", style="dim"), *inside, Text("")]


def _heading(explanation: Explanation) -> RenderableType:
    task = f", task {explanation.task}" if explanation.task else ""
    cost = explanation.cost
    half = spoken_state(cost.state * 2, cost.state_per_token * 2)
    state = spoken_state(explanation.state_bytes, cost.state_per_token * 4)
    rows = [
        ("parameters", f"{explanation.parameter_count:,}", spoken_bytes(4 * explanation.parameter_count)),
        ("state", state or "none", f"per sequence; in bfloat16 {half}" if half else ""),
        ("decode", spoken_flops(cost.decode) or "0", "operations per token"),
        ("training", spoken_flops(cost.training) or "0", "operations per token, forward and backward"),
    ]
    if cost.decode.per_context:
        rows.append(("", "", "n: tokens in the context"))
    width = max(len(value) for _, value, _ in rows)
    lines = [Text.assemble((explanation.name, "bold"), f"  {explanation.kind}{task}")]
    lines += [
        Text.assemble((f"  {name:<11}", "dim"), (f"{value:>{width}}", "bold"), (f"  {note}", "dim"))
        for name, value, note in rows
    ]
    return Group(*lines, Text(""))


# --- levels ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """One row of the level table: cells, and a remark below them."""

    cells: tuple[str, ...]
    remark: str = ""


def _levels(levels: Sequence[LevelRow]) -> list[RenderableType]:
    """Fastest first, in columns that are the same for every level."""
    tables = [(level, [_line(rows) for rows in _alike(level.problems)]) for level in reversed(levels)]
    cells = [COLUMNS, *(line.cells for _, lines in tables for line in lines)]
    used = [i for i in range(len(COLUMNS)) if any(row[i] for row in cells[1:])]
    widths = {i: max(len(row[i]) for row in cells) for i in used}
    widths |= {i: min(widths.get(i, 0), most) for i, most in _WIDEST.items()}
    out: list[RenderableType] = [_columns(COLUMNS, used, widths, "dim")]
    for level, lines in tables:
        names = f"  {', '.join(level.names)}" if level.names else ""
        heading = Text.assemble((f"level {level.number}  {level.clock}", "bold cyan"), (names, "italic"))
        out += [Text(""), heading]
        out.append(Padding(Text(level.reason, style="dim"), (0, 0, 0, 3), expand=False))
        for line in lines:
            out.append(_columns(line.cells, used, widths, ""))
            if line.remark:
                out.append(Padding(Text(line.remark, style="dim"), (0, 0, 0, 5), expand=False))
    return out


def _columns(cells: Sequence[str], used: Sequence[int], widths: dict[int, int], style: str) -> Text:
    """One line; a cell that is too long pushes the rest to a line of its own."""
    line = Text(style=style)
    line.append("   ")
    for i in used:
        cell = cells[i]
        if len(cell) > widths[i]:
            line.append(cell)
            line.append("\n   " + " " * (sum(widths[j] + 2 for j in used if j <= i)))
            continue
        line.append(f"{cell:>{widths[i]}}" if i in _RIGHT else f"{cell:<{widths[i]}}")
        line.append("  ")
    line.rstrip()
    return line


def _alike(rows: Iterable[MemoryRow]) -> list[list[MemoryRow]]:
    """Memories that differ in their names only, together."""
    groups: dict[tuple[object, ...], list[MemoryRow]] = {}
    for row in rows:
        same = (row.block, row.kind, row.map, row.objective, row.rule, row.retention, row.start, row.reset)
        sizes = (row.copies, row.state_bytes, row.parameters, row.decode, row.training)
        unique = (row.id,) if row.kind == "slow parameters" else ()
        groups.setdefault((*same, *sizes, *unique), []).append(row)
    return list(groups.values())


def _line(rows: list[MemoryRow]) -> _Line:
    """One line for memories that are alike; numbers are of all of them together."""
    row = rows[0]
    count = len(rows)
    name = ", ".join(r.name for r in rows)
    if row.kind == "slow parameters":
        name = row.block.rpartition(".")[2]
    cells = (
        name,
        _solves(row),
        spoken_state(row.state_bytes * count, row.bytes_per_token * count),
        spoken_count(row.parameters * count) if row.parameters else "",
        spoken_flops(row.decode * count),
        spoken_flops(row.training * count),
    )
    return _Line(cells, _remark(rows))


def _solves(row: MemoryRow) -> str:
    """Map, objective and rule in one phrase."""
    rule = row.rule.partition("(")[0]
    if row.kind == "slow parameters":
        return row.name
    if row.kind == "optimiser memory":
        return row.objective
    if row.kind == "attention":
        return f"{row.map}: {row.rule}"
    by = " by ".join(part for part in (row.objective, rule) if part)
    return f"{row.map}: {by}" if by else row.map


def _remark(rows: list[MemoryRow]) -> str:
    """The rest of what is known, in one line."""
    row = rows[0]
    block = row.block.rpartition(".")[2]
    if row.kind == "slow parameters":
        by = f"{row.objective} by {row.rule}" if row.rule else "nothing here trains them"
        return by
    if row.kind == "optimiser memory":
        size = "as large as what it trains" if row.map == LIKE_W else "of a shape of its own"
        return f"by {row.rule}, {size}, starts at {row.start}"
    rule = row.rule if "(" in row.rule else ""
    retain = f"retain {row.retention}" if row.retention else ""
    each = "each " if len(rows) > 1 else ""
    how = ", ".join(part for part in (rule, retain) if part)
    life = f"starts {row.start}, {each}{row.sharing}, reset {row.reset}"
    return f"{block}: " + "; ".join(part for part in (how, life) if part)
