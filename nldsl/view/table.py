"""An explanation as tables for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nldsl.graph.model import TRANSFERS
from nldsl.view.explain import Explanation, LevelRow, MemoryRow


def render_explanation(explanation: Explanation, parameters: bool = False) -> RenderableType:
    """The tables of `nldsl explain`; with `parameters` one line per slow parameter as well."""
    parts: list[RenderableType] = [_heading(explanation)]
    for level in reversed(explanation.levels):
        parts += [_level_heading(level), _level(level), ""]
    parts += [_blocks(explanation), "", _transfers(explanation)]
    if explanation.lowerings:
        parts += ["", _lowerings(explanation)]
    if parameters:
        parts += ["", _parameters(explanation)]
    return Group(*parts)


def spoken_bytes(count: int) -> str:
    """A size in words.

    Example:
        >>> spoken_bytes(512), spoken_bytes(40_960)
        ('512 B', '40.0 KiB')
    """
    if count < 1024:
        return f"{count} B"
    power = 1
    while power < 3 and count >= 1024 ** (power + 1):
        power += 1
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def _heading(explanation: Explanation) -> Text:
    task = f", task {explanation.task}" if explanation.task else ""
    line = Text()
    line.append(explanation.name, style="bold")
    line.append(
        f"  {explanation.kind}{task}: {explanation.parameter_count:,} slow parameters, "
        f"{spoken_bytes(explanation.state_bytes)} of memory per sequence\n"
    )
    return line


def _table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _level_heading(level: LevelRow) -> Text:
    line = Text()
    line.append(f"level {level.number}  {level.clock}", style="bold")
    line.append(f"  {', '.join(level.names)}\n", style="italic")
    line.append(f"  {level.reason}", style="dim")
    return line


def _level(level: LevelRow) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for row in level.problems:
        block = row.block.rpartition(".")[2]
        held = f"{row.parameters:,} numbers" if row.parameters else _state(row)
        cells = (f"  {row.name}", block, _solves(row), row.copies, held)
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _solves(row: MemoryRow) -> str:
    """Map, objective and rule in one phrase."""
    objective = (
        f"minimise {row.objective}" if row.objective and row.kind != "optimiser memory" else row.objective
    )
    by = f"by {row.rule}" if row.rule else ""
    return ", ".join(part for part in (row.map, " ".join(p for p in (objective, by) if p)) if part)


def _state(row: MemoryRow) -> str:
    fixed = spoken_bytes(row.state_bytes) if row.state_bytes else ""
    growing = f"{spoken_bytes(row.bytes_per_token)} per token" if row.bytes_per_token else ""
    return " + ".join(part for part in (fixed, growing) if part)


def _blocks(explanation: Explanation) -> Table:
    table = _table("slow parameters", "block", "parameters", right=("parameters",))
    for block, count in explanation.blocks:
        table.add_row(escape(block), f"{count:,}")
    return table


def _transfers(explanation: Explanation) -> Table:
    """One row for all targets that get the same from one source in the same way."""
    table = _table("transfers", "kind", "from", "to", "carries")
    rows: dict[tuple[str, str, str], list[str]] = {}
    for t in explanation.transfers:
        carried = ", ".join(t.carries) + (" (to the next copy)" if t.wraps else "")
        rows.setdefault((t.kind, t.source, carried), []).append(t.target)
    order: list[str] = list(TRANSFERS)
    for (kind, source, carried), targets in sorted(rows.items(), key=lambda row: order.index(row[0][0])):
        table.add_row(kind, escape(source), escape(", ".join(targets)), escape(carried))
    return table


def _lowerings(explanation: Explanation) -> Table:
    table = _table("lowerings", "block", "memories", "lowering", "because")
    for row in explanation.lowerings:
        table.add_row(escape(row.unit), escape(row.memories), row.lowering, escape(row.reason))
    return table


def _parameters(explanation: Explanation) -> Table:
    table = _table("parameters", "path", "shape", "role", "trained by")
    for row in explanation.parameters:
        shape = " x ".join(str(n) for n in row.shape) or "scalar"
        table.add_row(escape(row.path), shape, row.role, escape(row.trained_by or "nothing here"))
    return table
