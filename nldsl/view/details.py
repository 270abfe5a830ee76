"""What the panel of a page tells about a problem beyond the graph: equations, cost, and the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nldsl.diagnostics import SpecError
from nldsl.graph import LevelGraph, Problem
from nldsl.graph.places import Place, places
from nldsl.lowerings.forms import plan_program
from nldsl.plan.plan import Plan
from nldsl.source import SourceFile, Span
from nldsl.spec.program import Memory, Program, Read, Statement, TaskWrite, Update, Write
from nldsl.view.cost import Cost, cost_of
from nldsl.view.equations import Dynamics, dynamics
from nldsl.view.mathtext import Run, runs

_AROUND = 1
_MOST_LINES = 24


@dataclass(frozen=True)
class Excerpt:
    """Lines of a text that belong together; `marked` are the lines that speak of the problem."""

    file: str
    first: int
    lines: tuple[str, ...]
    marked: tuple[int, ...]


@dataclass(frozen=True)
class Detail:
    """What is known about one problem: equations as runs of styled text, cost, and where it is written.

    `flops` are operations per token of one copy: (decode, decode per token of context, training,
    training per token of context).
    """

    update: tuple[tuple[Run, ...], ...] = ()
    where: tuple[tuple[Run, ...], ...] = ()
    latex: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    known_as: str = ""
    paper: str = ""
    gates: tuple[tuple[str, str], ...] = ()
    transitions: tuple[tuple[tuple[Run, ...], str, tuple[Run, ...]], ...] = ()
    objective: tuple[Run, ...] = ()
    map: tuple[Run, ...] = ()
    rule: tuple[tuple[Run, ...], ...] = ()
    flops: tuple[int, int, int, int] | None = None
    excerpts: tuple[Excerpt, ...] = ()
    line: int = 0
    file: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def details(program: Program, graph: LevelGraph) -> dict[str, Detail]:
    """The details of every problem, by its id."""
    spans: dict[str, list[Span | None]] = {}
    copies: dict[str, int] = {}
    for block, place in places(program.root, Place.root(program)):
        copies.setdefault(place.home, place.copies)
        for memory in block.memories:
            copies[place.memory_id(memory)] = place.copies
            spans[place.memory_id(memory)] = _memory_spans(memory, block.body)
        for problem in graph.problems:
            if problem.kind == "slow parameters" and problem.zone == place.home:
                spans.setdefault(problem.id, [block.span])
    for problem in graph.problems:
        if problem.kind == "optimiser memory":
            spans[problem.id] = _rule_spans(program, problem)
    costs = cost_of(program, _plan(program))
    moving = {d.id: d for d in dynamics(program)}
    found = {}
    for p in graph.problems:
        # Slow parameters stand for what a block computes without its memories; the first of a block tells it.
        first = next((q.id for q in graph.problems if (q.zone, q.kind) == (p.zone, p.kind)), "")
        cost = costs.memories.get(p.id)
        if p.kind == "slow parameters" and p.id == first:
            cost = costs.blocks.get(p.zone)
        flops = _flops(cost, copies.get(p.id, copies.get(p.zone, 1))) if cost else None
        found[p.id] = _detail(p, spans.get(p.id, []), moving.get(p.id), flops)
    return found


def _plan(program: Program) -> Plan | None:
    """How it would be computed; `None` if nothing can compute it yet."""
    try:
        return plan_program(program)
    except SpecError:
        return None


def _flops(cost: Cost, copies: int) -> tuple[int, int, int, int]:
    ways = (cost.decode, cost.training)
    numbers = [n // max(1, copies) for way in ways for n in (way.fixed, way.per_context)]
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _memory_spans(memory: Memory, body: Iterable[Statement]) -> list[Span | None]:
    return [memory.span, *(s.span for s in body if _speaks_of(s, memory.name))]


def _speaks_of(statement: Statement, memory: str) -> bool:
    return isinstance(statement, Read | Write | TaskWrite | Update) and statement.memory == memory


def _rule_spans(program: Program, problem: Problem) -> list[Span | None]:
    if program.train is None:
        return []
    index = int(problem.id.removeprefix("train[").partition("]")[0])
    bound = program.train.groups[index].bound
    return [bound.function.span if bound else None, *program.train.groups[index].spans]


def _detail(
    problem: Problem,
    at: list[Span | None],
    moves: Dynamics | None,
    flops: tuple[int, int, int, int] | None,
) -> Detail:
    spans = [span for span in at if span is not None]
    return Detail(
        **(_moving(moves) if moves else {}),
        objective=runs(problem.objective_equation),
        map=runs(problem.map_equation),
        rule=tuple(runs(text) for text in problem.rule_equation.split("; ") if text),
        flops=flops,
        excerpts=tuple(_excerpts(spans, whole=problem.kind in ("memory", "task memory", "attention"))),
        line=spans[0].line if spans else 0,
        file=spans[0].file.name if spans else "",
    )


def _moving(moves: Dynamics) -> dict[str, Any]:
    transitions = []
    for weight, found in moves.transitions:
        factor = runs(f"{weight}: {found.factor}" if len(moves.transitions) > 1 else found.factor)
        transitions.append((factor, f"in {found.range}: {found.sentence}", runs(found.admissible)))
    return {
        "update": tuple(runs(f.text) for f in moves.formulas),
        "where": tuple(runs(f.text) for f in moves.where),
        "latex": tuple(f.latex for f in (*moves.formulas, *moves.where)),
        "reasons": moves.reasons,
        "known_as": moves.known_as,
        "paper": moves.paper,
        "gates": moves.gates,
        "transitions": tuple(transitions),
    }


def _excerpts(spans: Iterable[Span], whole: bool) -> Iterator[Excerpt]:
    """Lines around every span; of a whole definition only its beginning is marked."""
    by_file: dict[SourceFile, dict[int, bool]] = {}
    for span in spans:
        rows = by_file.setdefault(span.file, {})
        last = span.file.position(max(span.start, span.end - 1))[0]
        marked = last if whole else span.line
        for row in range(max(1, span.line - _AROUND), last + _AROUND + 1):
            rows[row] = rows.get(row, False) or span.line <= row <= marked
    for file, rows in by_file.items():
        total = len(file.line_starts)
        yield from _chunks(file, {row: rows[row] for row in sorted(rows) if row <= total})


def _chunks(file: SourceFile, rows: dict[int, bool]) -> Iterator[Excerpt]:
    """Runs of rows without a gap, each cut to what fits a panel."""
    parts: list[list[int]] = []
    for row in rows:
        if parts and row == parts[-1][-1] + 1:
            parts[-1].append(row)
        else:
            parts.append([row])
    for part in parts:
        shown = part[:_MOST_LINES]
        lines = tuple(file.line(n).rstrip() for n in shown)
        yield Excerpt(file.name, shown[0], lines, tuple(n for n in shown if rows[n]))
