"""Run units on the same clock in one loop: chunked ones, and those token by token with a family in common."""

from __future__ import annotations

from dataclasses import replace

from nldsl.plan import chunk, sequential
from nldsl.plan.details import ChunkDetail
from nldsl.plan.plan import Unit, Verdict
from nldsl.plan.units import dependency_graph
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block


def fuse(block: Block, units: tuple[Unit, ...]) -> tuple[Unit, ...]:
    """`units` with neighbouring ones that run better in one loop merged, in an order of computation."""
    merged = list(units)
    while (pair := _candidate(block, merged)) is not None:
        first, second, unit = pair
        kept = [u for u in merged if u is not first and u is not second and not _absorbed(u, unit)]
        merged = _in_order(block, [*kept, unit])
    return tuple(merged)


def _absorbed(unit: Unit, into: Unit) -> bool:
    return set(unit.statements) <= set(into.statements)


def _candidate(block: Block, units: list[Unit]) -> tuple[Unit, Unit, Unit] | None:
    """Two units that can run as one, with everything that lies between them."""
    for i, first in enumerate(units):
        for second in units[i + 1 :]:
            unit = None
            if isinstance(first.detail, ChunkDetail) and isinstance(second.detail, ChunkDetail):
                unit = _merge(block, first, second)
            elif first.lowering == second.lowering == "sequential":
                unit = _side_by_side(block, first, second)
            if unit is not None:
                return first, second, unit
    return None


def _side_by_side(block: Block, first: Unit, second: Unit) -> Unit | None:
    """One loop over tokens, if a family has members in both and nothing else comes into the loop."""
    graph = dependency_graph(block)
    both = set(first.statements) | set(second.statements)
    statements = tuple(sorted(both))
    if (_reach(graph.successors, both) & _reach(graph.predecessors, both)) - both:
        return None
    answer = sequential.recognise(block, statements)
    if isinstance(answer, Refusal):
        return None
    detail, reason = answer
    own = (set(first.memories), set(second.memories))
    if not any(set(f) & own[0] and set(f) & own[1] for f in detail.families):
        return None
    memories = (*first.memories, *second.memories)
    return Unit(statements, memories, "sequential", reason, first.verdicts, detail)


def _merge(block: Block, first: Unit, second: Unit) -> Unit | None:
    """Two chunked units on equal clocks."""
    assert isinstance(first.detail, ChunkDetail)
    assert isinstance(second.detail, ChunkDetail)
    details = (first.detail, second.detail)
    clocks = {chunk.clocks_of(m) for d in details for m in d.members}
    caches = [c for d in details for c in d.caches]
    if len(clocks | {chunk.resets_of(c.memory) for c in caches}) != 1:
        return None
    graph = dependency_graph(block)
    both = set(first.statements) | set(second.statements)
    ahead = _reach(graph.successors, both)
    behind = _reach(graph.predecessors, both)
    statements = tuple(sorted(both | (ahead & behind)))
    answer = chunk.recognise(block, statements)
    if isinstance(answer, Refusal):
        return None
    detail, reason = answer
    if len(detail.caches) > len(caches):
        return None  # attention between the two is faster for all tokens at once
    own = (set(first.memories), set(second.memories))
    together = any(set(f) & own[0] and set(f) & own[1] for f in detail.families)
    if first.lowering == second.lowering == "held" and not together:
        return None  # a pass for each is faster than one loop, unless products are shared
    verdicts = tuple(_in_one_loop(v, second.memories) for v in first.verdicts)
    return Unit(statements, (*first.memories, *second.memories), "chunk", reason, verdicts, detail)


def _in_one_loop(verdict: Verdict, others: tuple[str, ...]) -> Verdict:
    """What would have taken a unit alone does not take it beside others."""
    if verdict.family != "held" or not verdict.accepted:
        return verdict
    names = ", ".join(f"`{name}`" for name in others)
    return replace(verdict, accepted=False, reason=f"it runs in one loop over chunks with {names}")


def _reach(step: object, start: set[int]) -> set[int]:
    seen: set[int] = set()
    stack = list(start)
    while stack:
        for node in step(stack.pop()):  # type: ignore[operator]
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return seen


def _in_order(block: Block, units: list[Unit]) -> list[Unit]:
    """Topological order of the units, by first statement where free."""
    owner = {i: n for n, u in enumerate(units) for i in u.statements}
    graph = dependency_graph(block)
    before: dict[int, set[int]] = {n: set() for n in range(len(units))}
    for a, b in graph.edges:
        if owner[a] != owner[b]:
            before[owner[b]].add(owner[a])
    order: list[int] = []
    while len(order) < len(units):
        ready = [n for n in before if n not in order and before[n] <= set(order)]
        order.append(min(ready, key=lambda n: units[n].statements[0]))
    return [units[n] for n in order]
