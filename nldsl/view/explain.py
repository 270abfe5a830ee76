"""What a program is, as tables: levels, memories, slow parameters, transfers, lowerings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from nldsl.graph import Problem, Transfer, build_graph, open_program
from nldsl.graph.levels import spoken
from nldsl.graph.places import all_parameters
from nldsl.graph.problems import who_trains
from nldsl.spec.program import Program


@dataclass(frozen=True)
class MemoryRow:
    """One problem of a level.  Bytes are float32, of one sequence, all repeated copies together."""

    id: str
    name: str
    block: str
    kind: str
    clock: str
    map: str
    objective: str
    rule: str
    copies: str
    state_bytes: int
    bytes_per_token: int
    parameters: int


@dataclass(frozen=True)
class LevelRow:
    """One level: number, names, clock and why it stands where it stands."""

    number: str
    names: tuple[str, ...]
    clock: str
    reason: str
    problems: tuple[MemoryRow, ...]


@dataclass(frozen=True)
class ParameterRow:
    """One slow parameter and the rule that trains it (empty if none does)."""

    path: str
    shape: tuple[int, ...]
    role: str
    trained_by: str


@dataclass(frozen=True)
class LoweringRow:
    """How the memories of a unit are computed, and why so."""

    unit: str
    memories: str
    lowering: str
    reason: str


@dataclass(frozen=True)
class Explanation:
    """Everything `nldsl explain` shows."""

    name: str
    kind: str
    task: str
    levels: tuple[LevelRow, ...]
    blocks: tuple[tuple[str, int], ...]
    transfers: tuple[Transfer, ...]
    parameters: tuple[ParameterRow, ...]
    lowerings: tuple[LoweringRow, ...] = ()

    @property
    def parameter_count(self) -> int:
        """How many numbers the slow parameters are."""
        return sum(prod(row.shape) for row in self.parameters)

    @property
    def state_bytes(self) -> int:
        """What the memories of one sequence take, without what grows with it."""
        return sum(row.state_bytes for level in self.levels for row in level.problems)

    def to_json(self) -> dict[str, Any]:
        """The explanation as dictionaries, lists, strings and numbers."""
        return {
            "name": self.name,
            "kind": self.kind,
            "task": self.task,
            "parameter_count": self.parameter_count,
            "state_bytes": self.state_bytes,
            "levels": [asdict(level) for level in self.levels],
            "blocks": [{"block": block, "parameters": count} for block, count in self.blocks],
            "transfers": [asdict(t) for t in self.transfers],
            "parameters": [asdict(row) for row in self.parameters],
            "lowerings": [asdict(row) for row in self.lowerings],
        }


def explain(source: str | Path, *, block: str | None = None, **arguments: Any) -> Explanation:
    """Explain a library name, a file, or the text of a specification.

    Raises:
        SpecError: the specification has errors.
    """
    return explain_program(open_program(source, block=block, **arguments))


def explain_program(program: Program, lowerings: Iterable[tuple[str, str, str, str]] = ()) -> Explanation:
    """Explain `program`; `lowerings` are the rows of a plan: (unit, memories, lowering, reason)."""
    graph = build_graph(program)
    slow = [p for p in graph.problems if p.kind == "slow parameters"]
    return Explanation(
        name=program.name,
        kind=program.kind,
        task=graph.task,
        levels=tuple(
            LevelRow(
                level.number,
                level.names,
                level.frequency,
                level.reason,
                tuple(_row(graph.problem(id)) for id in level.problems),
            )
            for level in graph.levels
        ),
        blocks=tuple((p.zone, p.parameters) for p in slow),
        transfers=graph.transfers,
        parameters=tuple(
            ParameterRow(path, p.shape, p.role, who_trains(program, path, p))
            for path, p in all_parameters(program)
        ),
        lowerings=tuple(LoweringRow(*row) for row in lowerings),
    )


def _row(problem: Problem) -> MemoryRow:
    times = [f"{problem.copies} heads" if problem.copies > 1 else "", f"x{problem.multiplicity}"]
    return MemoryRow(
        id=problem.id,
        name=problem.name,
        block=problem.zone,
        kind=problem.kind,
        clock=spoken(problem.clock),
        map=problem.map,
        objective=problem.objective,
        rule=problem.rule,
        copies=" ".join(t for t in times if t and t != "x1"),
        state_bytes=problem.state_bytes * problem.multiplicity,
        bytes_per_token=problem.bytes_per_token * problem.multiplicity,
        parameters=problem.parameters,
    )
