"""`Program` -> `LevelGraph`."""

from __future__ import annotations

import networkx as nx

from nldsl.graph.flow import analyse
from nldsl.graph.levels import derive_levels
from nldsl.graph.model import Frame, LevelGraph, Port, Problem, Transfer, Zone
from nldsl.graph.places import Place, places
from nldsl.graph.problems import TRAINING, memory_problems, optimiser_problems, slow_problems
from nldsl.graph.transfers import OUTPUT, derive_transfers, merged, optimiser_transfers
from nldsl.spec.program import Block, Program, Repeat, Rule


def build_graph(program: Program) -> LevelGraph:
    """The level graph of a program: optimisation problems, transfers, levels by Definition 2.

    A repeated block is kept as one copy, with its multiplicity on every problem in it.
    """
    slots = tuple(optimiser_problems(program))
    memories, slow = tuple(memory_problems(program)), tuple(slow_problems(program))
    problems = (*slow, *(problem for problem, _ in slots), *memories)
    by_id = {p.id: p for p in (*slow, *memories)}
    flow = analyse(program)
    transfers = merged([*derive_transfers(flow, by_id), *optimiser_transfers(slots)])
    needs = flow.needs.copy()
    needs.add_nodes_from(p.id for p in problems)
    _add_optimiser_needs(needs, slots, program)
    zones = _zones(program, problems)
    return LevelGraph(
        name=program.name,
        kind=program.kind,
        task=program.train.task if program.train else "",
        problems=problems,
        ports=_ports(program),
        transfers=transfers,
        levels=derive_levels(problems, needs),
        zones=zones,
        frames=_frames(program.root, Place.root(program), {f for z in zones for f in z.frames}),
        parts=_parts(memories, transfers),
        sources=program.sources,
    )


def _ports(program: Program) -> tuple[Port, ...]:
    inputs = (Port(f"input:{v.name}", v.name, "input") for v in program.root.inputs)
    return (*inputs, Port(OUTPUT, program.train.task if program.train else OUTPUT, "output"))


def _zones(program: Program, problems: tuple[Problem, ...]) -> tuple[Zone, ...]:
    """The blocks that hold a problem, in program order; what trains them comes last.

    A program without any problem has the zone of its root.
    """
    used = {p.zone for p in problems} or {Place.root(program).zone}
    found: dict[str, Zone] = {}
    for block, place in places(program.root, Place.root(program)):
        if place.zone in used and place.zone not in found:
            label = program.name if block is program.root else block.name
            found[place.zone] = Zone(place.zone, label, place.frames)
    if TRAINING in used:
        found.setdefault(TRAINING, Zone(TRAINING, TRAINING))
    return tuple(found.values())


def _frames(block: Block, place: Place, used: set[str]) -> tuple[Frame, ...]:
    frames = {}
    for inner, where in places(block, place):
        for statement in inner.body:
            if isinstance(statement, Repeat):
                id = where.repeat(statement).path
                if id in used:
                    frames[id] = Frame(id, statement.path, statement.count)
    return tuple(frames.values())


def _add_optimiser_needs(
    needs: nx.DiGraph[str], slots: tuple[tuple[Problem, tuple[str, ...]], ...], program: Program
) -> None:
    """Weights at step t need the optimiser's memories at step t; a memory may need another one."""
    for problem, served in slots:
        needs.add_edges_from((problem.id, slow) for slow in served)
    if program.train is None:
        return
    for index, group in enumerate(program.train.groups):
        if group.bound is not None:
            prefix = f"train[{index}].{group.rule}"
            needs.add_edges_from((f"{prefix}.{a}", f"{prefix}.{b}") for a, b in _slot_needs(group.bound))
    known = {problem.id for problem, _ in slots}
    needs.remove_nodes_from([n for n in needs if n.startswith("train[") and n not in known])


def _slot_needs(rule: Rule) -> list[tuple[str, str]]:
    """(a, b): the new value of slot b is computed from the new value of slot a."""
    flow: nx.DiGraph[str] = nx.DiGraph()
    for statement in rule.function.body:
        flow.add_edges_from((arg.name, statement.out.name) for arg in statement.args)
    new = {slot.name: out.name for slot, out in zip(rule.slots, rule.function.outputs[1:], strict=True)}
    kept = {a: n for a, n in new.items() if n in flow}
    return [(a, b) for a in kept for b in kept if kept[a] != kept[b] and nx.has_path(flow, kept[a], kept[b])]


def _parts(memories: tuple[Problem, ...], transfers: tuple[Transfer, ...]) -> tuple[tuple[str, ...], ...]:
    """Strongly connected parts of the memories of one copy, in program order."""
    ids = [p.id for p in memories]
    inside = set(ids)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(ids)
    forward = ("condition", "generate", "non-parametric")
    graph.add_edges_from(
        (t.source, t.target)
        for t in transfers
        if t.kind in forward and not t.wraps and {t.source, t.target} <= inside
    )
    found = [tuple(i for i in ids if i in part) for part in nx.strongly_connected_components(graph)]
    return tuple(sorted(found, key=lambda part: ids.index(part[0])))
