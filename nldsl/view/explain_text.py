"""The parts of an explanation that are lines of text: equations, lowerings, transfers, parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import prod

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from nldsl.graph.model import TRANSFERS, Transfer
from nldsl.view.equations import Dynamics
from nldsl.view.explain import ParameterRow
from nldsl.view.lowering import LoweringRow
from nldsl.view.transition import Transition
from nldsl.view.words import short_names

CLASSES = {
    "D": "a decayed sum, nothing erased",
    "R": "a linear recurrence with erases of rank one",
    "N": "linear within a chunk, gradients held",
    "X": "no recurrence of rank one along the key",
    "S": "no parameters, solved anew at every token",
    "T": "steps on the task's gradient",
}
_STYLES = {"contracts": "green", "keeps": "green", "expands": "bold red", "unknown": "yellow"}


def _indented(text: Text | str, by: int, style: str = "") -> RenderableType:
    return Padding(Text(text, style=style) if isinstance(text, str) else text, (0, 0, 0, by), expand=False)


# --- equations -------------------------------------------------------------------------------


def equations_text(rows: Iterable[Dynamics]) -> Iterator[RenderableType]:
    """What every memory does, memories that do the same together."""
    groups: dict[tuple[object, ...], list[Dynamics]] = {}
    for row in rows:
        groups.setdefault((row.block, row.formulas, row.where, row.transitions, row.known_as), []).append(row)
    for n, same in enumerate(groups.values()):
        if n:
            yield Text("")
        yield from _equation(same)


def _equation(rows: Sequence[Dynamics]) -> Iterator[RenderableType]:
    row = rows[0]
    block = row.block.rpartition(".")[2]
    names = ", ".join(r.name for r in rows)
    yield Text.assemble(
        ("  "),
        (names, "bold cyan"),
        (f"  in {block}", ""),
        (f"   class {row.letter}: {CLASSES[row.letter]}", "dim"),
    )
    if row.known_as:
        paper = f"  ({row.paper})" if row.paper else ""
        yield _indented(Text.assemble(("this is ", "dim"), (row.known_as, "italic"), (paper, "dim")), 4)
    for formula in row.formulas:
        yield _indented(Text(formula.text, style="bold"), 6)
    for formula in row.where:
        yield _indented(formula.text, 10)
    if row.gates:
        yield _indented(", ".join(f"{name} in {found}" for name, found in row.gates), 10)
    for name, step in _distinct(row.transitions):
        yield from _transition(name, step)
    if row.spectrum:
        yield _indented(Text(row.spectrum, style="dim"), 6)


def _distinct(transitions: Sequence[tuple[str, Transition]]) -> Iterator[tuple[str, Transition]]:
    """Each transition once, with the names of all weights that have it."""
    groups: dict[Transition, list[str]] = {}
    for name, step in transitions:
        groups.setdefault(step, []).append(name)
    for step, names in groups.items():
        yield (", ".join(names) if len(groups) > 1 else ""), step


def _transition(name: str, step: Transition) -> Iterator[RenderableType]:
    key = "a unit key" if step.unit_key else "its input"
    of = f" of {name}" if name else ""
    head = Text.assemble(
        (f"along {key}{of}  ", "dim"),
        (step.factor, "bold"),
        (f" in {step.range}  " if step.range != step.factor else "  ", ""),
        (step.sentence, _STYLES[step.verdict]),
    )
    yield _indented(head, 4)
    notes = []
    if step.admissible:
        notes.append(f"admissible: {step.admissible}")
    if step.elsewhere != step.factor:
        kept = "" if step.elsewhere == "1" else f" times {step.elsewhere}"
        notes.append(f"elsewhere the state is kept{kept}")
    if notes:
        yield _indented("; ".join(notes), 10, "dim")
    if step.stale:
        yield _indented(step.stale, 10, "yellow" if "blow up" in step.stale else "dim")


# --- lowerings -------------------------------------------------------------------------------


def lowerings_text(rows: Iterable[LoweringRow]) -> Iterator[RenderableType]:
    """Which form computes what, and what the others said."""
    groups: dict[tuple[object, ...], list[LoweringRow]] = {}
    for row in rows:
        groups.setdefault((row.block, row.lowering, row.reason, row.form, row.others), []).append(row)
    for same in groups.values():
        row = same[0]
        names = ", ".join(name for r in same for name in r.memories)
        yield Text.assemble("  ", (names, "bold cyan"), f"  in {row.block}  ", (row.lowering, "bold green"))
        yield _indented(f"because {row.reason}", 6)
        if row.form:
            chunk = f"chunks of {row.width}: " if row.chunk else ""
            yield _indented(Text.assemble((chunk, "dim"), row.form), 6)
        for other in row.others:
            word = f"{other.lowering} would do too" if other.accepted else f"not {other.lowering}"
            yield _indented(f"{word}: {other.reason}", 6, "dim")


# --- transfers -------------------------------------------------------------------------------


def transfers_text(transfers: Sequence[Transfer]) -> Iterator[RenderableType]:
    """One line for everything that passes the same from one to many, or from many to one."""
    names = short_names(id for t in transfers for id in (t.source, t.target))
    lines: dict[tuple[str, str, str], list[str]] = {}
    for t in transfers:
        carried = ", ".join(t.carries) + (" to the next copy" if t.wraps else "")
        lines.setdefault((t.kind, carried, names[t.source]), []).append(names[t.target])
    joined: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (kind, carried, source), reached in lines.items():
        joined.setdefault((kind, carried, tuple(reached)), []).append(source)
    for name, meaning in TRANSFERS.items():
        mine = [(c, sources, targets) for (k, c, targets), sources in joined.items() if k == name]
        if not mine:
            continue
        yield Text.assemble("  ", (name, "bold"), (f"  {meaning}", "dim"))
        for carried, sources, targets in mine:
            text = Text.assemble(
                ", ".join(sources), (" -> ", "dim"), ", ".join(targets), (f"  {carried}", "italic dim")
            )
            yield _indented(text, 6)


# --- parameters ------------------------------------------------------------------------------

_INDEX = re.compile(r"^(\w+)\[(\d+)\]")


def parameters_text(rows: Sequence[ParameterRow]) -> Iterator[RenderableType]:
    """Who trains what: one group per rule, repeated blocks together."""
    groups: dict[tuple[str, int, str], list[ParameterRow]] = {}
    for row in rows:
        groups.setdefault((row.trained_by, row.every, row.selector), []).append(row)
    for (rule, every, selector), mine in groups.items():
        count = sum(_size(row) for row in mine)
        when = "every step" if every == 1 else f"every {every} steps"
        head = Text.assemble("  ", (rule or "nothing here trains these", "bold cyan"))
        if rule:
            head.append(f"  {when}, claims {selector}")
        head.append(f"  {count:,} numbers in {len(mine)} tensors", style="dim")
        yield head
        for form in dict.fromkeys(row.form for row in mine if row.form):
            yield Text(f"      {form}", style="dim")
        lines = _repeats(mine)
        width = min(max(len(path) for path, _ in lines), 64)
        shapes = max(len(_shape(row)) for _, row in lines)
        for path, row in lines:
            yield Text(f"      {path:<{width}}  {_shape(row):>{shapes}}  {row.role}")


def _repeats(rows: Sequence[ParameterRow]) -> list[tuple[str, ParameterRow]]:
    """Paths that differ in the index of the outermost repeat, as one: `blocks[0..3].q.linear.weight`."""
    found: dict[tuple[str, str, tuple[int, ...], str], list[tuple[int, ParameterRow]]] = {}
    for row in rows:
        match = _INDEX.match(row.path)
        repeat, rest = (match[1], row.path[match.end() :]) if match else ("", row.path)
        found.setdefault((repeat, rest, row.shape, row.role), []).append((int(match[2]) if match else 0, row))
    lines = []
    for (repeat, rest, _, _), members in found.items():
        numbers = [n for n, _ in members]
        whole = numbers == list(range(numbers[0], numbers[-1] + 1))
        index = f"{numbers[0]}..{numbers[-1]}" if len(numbers) > 1 and whole else ",".join(map(str, numbers))
        lines.append((f"{repeat}[{index}]{rest}" if repeat else rest, members[0][1]))
    return lines


def _shape(row: ParameterRow) -> str:
    return " x ".join(str(n) for n in row.shape) or "scalar"


def _size(row: ParameterRow) -> int:
    return prod(row.shape)
