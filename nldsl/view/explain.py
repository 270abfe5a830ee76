"""What a program is, as frozen data: levels, memories, equations, cost, lowerings, parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from nldsl.diagnostics import SpecError
from nldsl.graph import LevelGraph, Problem, Transfer, build_graph, open_program
from nldsl.graph.levels import spoken
from nldsl.graph.places import all_parameters, claiming_group
from nldsl.graph.rule_labels import group_label
from nldsl.lowerings.forms import plan_program
from nldsl.plan.export import against_export
from nldsl.plan.plan import Plan
from nldsl.spec.program import Program
from nldsl.spec.walk import linear_paths
from nldsl.view.cost import Cost, Costs, Flops, cost_of
from nldsl.view.equations import Dynamics, dynamics
from nldsl.view.lowering import LoweringRow, lowering_rows
from nldsl.view.matrix_form import MATRIX_FORMS
from nldsl.view.rule_forms import rule_form

SCHEMA = 2
"""Of `Explanation.to_json`; raised by one whenever a field changes its meaning or goes."""


@dataclass(frozen=True)
class MemoryRow:
    """One problem of a level.

    Bytes are float32, of one sequence, all repeated copies together; so are parameters and operations
    (per token).  `copies` are heads and repeated blocks; `sharing` says who has a copy of its own.
    A memory's parameters are its initial state; those of slow parameters are the others of their block, with
    its hidden state and operations (in the first row of a block that is trained on several clocks).
    """

    id: str
    name: str
    block: str
    kind: str
    clock: str
    map: str
    objective: str
    rule: str
    retention: str
    start: str
    reset: str
    sharing: str
    copies: str
    heads: int
    multiplicity: int
    state_bytes: int
    bytes_per_token: int
    parameters: int
    decode: Flops
    training: Flops
    source: str


@dataclass(frozen=True)
class LevelRow:
    """One level: number, names, clock and why it stands where it stands."""

    number: str
    names: tuple[str, ...]
    clock: str
    reason: str
    problems: tuple[MemoryRow, ...]


@dataclass(frozen=True)
class BlockRow:
    """A block where it is called, without its memories: slow parameters, hidden state, operations."""

    block: str
    parameters: int
    state_bytes: int
    decode: Flops
    training: Flops


@dataclass(frozen=True)
class ParameterRow:
    """One slow parameter and the rule that trains it (empty if none does)."""

    path: str
    shape: tuple[int, ...]
    role: str
    trained_by: str
    every: int
    selector: str
    form: str = ""
    """How its rule is computed, and why."""


@dataclass(frozen=True)
class Explanation:
    """Everything `nldsl explain` shows.

    `unsupported` are the reasons why the compiler does not take the program, if it does not.
    """

    name: str
    kind: str
    task: str
    levels: tuple[LevelRow, ...]
    blocks: tuple[BlockRow, ...]
    equations: tuple[Dynamics, ...]
    transfers: tuple[Transfer, ...]
    parameters: tuple[ParameterRow, ...]
    lowerings: tuple[LoweringRow, ...]
    cost: Cost
    unsupported: tuple[str, ...] = ()
    not_exported: str = ""
    """Why `torch.export` refuses the module (NL0702); empty if it is one graph."""

    @property
    def parameter_count(self) -> int:
        """How many numbers the slow parameters are."""
        return sum(prod(row.shape) for row in self.parameters)

    @property
    def state_bytes(self) -> int:
        """What one sequence carries in float32, without what grows with it."""
        return self.cost.state_bytes()

    def to_json(self) -> dict[str, Any]:
        """The explanation as dictionaries, lists, strings and numbers."""
        found: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        found |= {"parameter_count": self.parameter_count, "state_bytes": self.state_bytes}
        for row, data in zip(self.equations, found["equations"], strict=True):
            for (_, step), (_, entry) in zip(row.transitions, data["transitions"], strict=True):
                entry["sentence"] = step.sentence
        return found


def explain(source: str | Path, *, block: str | None = None, **arguments: Any) -> Explanation:
    """Explain a library name, a file, or the text of a specification.

    Raises:
        SpecError: the specification has errors.

    Example:
        >>> found = explain("gated_deltanet", block="gated_deltanet", dim=32)
        >>> found.equations[0].known_as, found.equations[0].transition.range
        ('Gated DeltaNet (Yang et al. 2025)', '(0, 1)')
    """
    return explain_program(open_program(source, block=block, **arguments))


def explain_program(program: Program, graph: LevelGraph | None = None) -> Explanation:
    """Explain `program`; give its `graph` if you have it already."""
    graph = graph or build_graph(program)
    plan, unsupported = _plan(program)
    costs = cost_of(program, plan)
    rows = lowering_rows(plan) if plan is not None else ()
    slow = {p.zone: p.id for p in reversed(graph.problems) if p.kind == "slow parameters"}
    firsts = frozenset(slow.values())
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
                tuple(_row(graph.problem(id), costs, id in firsts) for id in level.problems),
            )
            for level in graph.levels
        ),
        blocks=tuple(_block_row(path, cost) for path, cost in costs.blocks.items()),
        equations=_recognised(dynamics(program), rows),
        transfers=graph.transfers,
        parameters=tuple(_parameters(program)),
        lowerings=rows,
        cost=costs.total,
        unsupported=unsupported,
        not_exported=against_export(plan) if plan is not None else "",
    )


def _recognised(found: tuple[Dynamics, ...], rows: tuple[LoweringRow, ...]) -> tuple[Dynamics, ...]:
    """What the matrix forms take is a linear recurrence, also where no equation of one key says so."""
    matrix = {(row.block, m) for row in rows for m in row.memories if row.lowering in MATRIX_FORMS}
    return tuple(
        _recurrence(d) if d.letter == "X" and (d.block.rpartition(".")[2], d.name) in matrix else d
        for d in found
    )


def _recurrence(d: Dynamics) -> Dynamics:
    """A linear recurrence of all its terms together: what was found of one alone is no reason."""
    return replace(d, letter="R", reasons=tuple(r for r in d.reasons if not r.startswith("class X")))


def _plan(program: Program) -> tuple[Plan | None, tuple[str, ...]]:
    """The plan, or what the compiler does not support yet: an explanation needs no compiled form."""
    try:
        return plan_program(program), ()
    except SpecError as refused:
        return None, tuple(dict.fromkeys(d.message for d in refused.diagnostics))


def _row(problem: Problem, costs: Costs, first: bool) -> MemoryRow:
    """One problem; the operations of a block stand in the first row of its slow parameters."""
    cost = costs.memories.get(problem.id, Cost())
    if problem.kind == "slow parameters" and first:
        cost = costs.blocks.get(problem.zone, Cost())
    return MemoryRow(
        id=problem.id,
        name=problem.name,
        block=problem.zone,
        kind=problem.kind,
        clock=spoken(problem.clock),
        map=problem.map,
        objective=problem.objective,
        rule=problem.rule,
        retention=problem.retention,
        start=problem.start,
        reset=problem.reset,
        sharing=_sharing(problem),
        copies=_copies(problem),
        heads=problem.copies,
        multiplicity=problem.multiplicity,
        state_bytes=cost.state_bytes(),
        bytes_per_token=problem.bytes_per_token * problem.multiplicity,
        parameters=cost.parameters,
        decode=cost.decode,
        training=cost.training,
        source=problem.source,
    )


def _copies(problem: Problem) -> str:
    times = [f"{problem.copies} heads" if problem.copies > 1 else "", f"x{problem.multiplicity}"]
    return " ".join(t for t in times if t and t != "x1")


def _sharing(problem: Problem) -> str:
    """Who has a copy of its own."""
    if problem.kind in ("slow parameters", "optimiser memory"):
        return "shared by all sequences"
    if problem.clock.unit == "steps":
        return "one for the whole batch"
    parts = ["sequence"]
    if problem.copies > 1:
        parts.append(f"head ({problem.copies})")
    if problem.multiplicity > 1:
        parts.append(f"repeat ({problem.multiplicity})")
    return "one per " + (" and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0])


def _block_row(path: str, cost: Cost) -> BlockRow:
    return BlockRow(path, cost.parameters, cost.state_bytes(), cost.decode, cost.training)


def _parameters(program: Program) -> Iterator[ParameterRow]:
    """Every slow parameter with the group that claims it and the selector that did."""
    linear = set(linear_paths(program.root))
    for path, parameter in all_parameters(program):
        index = claiming_group(program.train, path, parameter)
        rule, every, selector, form = "", 0, "", ""
        if program.train is not None and index is not None:
            group = program.train.groups[index]
            rule, every = group_label(group), group.every
            selector = ", ".join(group.selectors)
            form = rule_form(group, parameter.shape, path in linear)
        yield ParameterRow(path, parameter.shape, parameter.role, rule, every, selector, form)
