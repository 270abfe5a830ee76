"""Levels by Definition 2: by frequency, and within one frequency by who needs whose state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import networkx as nx

from nldsl.graph.model import Level, Problem
from nldsl.spec.program import Clock

Frequency = tuple[int, Fraction]
"""(class, rate): 0 never, 1 steps, 2 tokens, 3 infinity; a token clock beats every step clock."""


def frequency(clock: Clock) -> Frequency:
    """How often a clock fires, as something to sort by.

    Example:
        >>> frequency(Clock(64, "tokens")) < frequency(Clock(16, "tokens")) < frequency(Clock(0, "always"))
        True
    """
    ranks = {"never": 0, "steps": 1, "tokens": 2, "always": 3}
    counted = clock.unit in ("tokens", "steps")
    return ranks[clock.unit], Fraction(1, clock.every) if counted else Fraction(0)


def spoken(clock: Clock) -> str:
    """A clock in words.

    Example:
        >>> spoken(Clock(1, "tokens")), spoken(Clock(64, "tokens")), spoken(Clock(0, "always"))
        ('every token', 'every 64 tokens', 'frequency infinity')
    """
    if clock.unit == "always":
        return "frequency infinity"
    if clock.unit == "never":
        return "frequency 0"
    return (
        f"every {clock.unit.removesuffix('s')}" if clock.every == 1 else f"every {clock.every} {clock.unit}"
    )


def derive_levels(problems: Sequence[Problem], needs: nx.DiGraph[str]) -> tuple[Level, ...]:
    """The levels of `problems`, slowest first; `needs` has A -> B if B at time t needs A at time t."""
    closure = nx.transitive_closure(needs, reflexive=False)
    levels: list[Level] = []
    previous: Clock | None = None
    for rank, wanted in enumerate(sorted({frequency(p.clock) for p in problems}), start=1):
        group = [p for p in problems if frequency(p.clock) == wanted]
        tiers = _tiers([p.id for p in group], closure)
        for place, ids in enumerate(tiers, start=1):
            members = [p for p in group if p.id in ids]
            number = f"{rank}.{place}" if len(tiers) > 1 else str(rank)
            reason = _by_frequency(members, previous, rank) if place == 1 else ""
            if place > 1:
                reason = _by_dependency(members, tiers[place - 2], group, closure, f"{rank}.{place - 1}")
            levels.append(_level(number, members, reason))
        previous = group[0].clock
    return tuple(levels)


def _tiers(ids: list[str], closure: nx.DiGraph[str]) -> list[list[str]]:
    """Ids of one frequency, slowest first: whoever is needed by another stands above it.

    Problems that need each other are one strongly connected part and share a tier.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(ids)
    graph.add_edges_from((a, b) for a in ids for b in ids if a != b and closure.has_edge(a, b))
    parts = nx.condensation(graph)
    height: dict[int, int] = {}
    for part in reversed(list(nx.topological_sort(parts))):
        height[part] = 1 + max((height[after] for after in parts.successors(part)), default=-1)
    member_of = {id: height[part] for part in parts for id in parts.nodes[part]["members"]}
    return [[id for id in ids if member_of[id] == tier] for tier in range(max(member_of.values()) + 1)]


def _level(number: str, members: list[Problem], reason: str) -> Level:
    names = tuple(dict.fromkeys(p.level for p in members if p.level))
    ids = tuple(p.id for p in members)
    return Level(number, names, members[0].clock, spoken(members[0].clock), ids, reason)


def _by_frequency(members: list[Problem], previous: Clock | None, rank: int) -> str:
    clock = members[0].clock
    if clock.unit == "always":
        return "solved anew from its whole context at every token: faster than any clock"
    if previous is None:
        return _outermost(clock)
    below = f"level {rank - 1} ({spoken(previous)})"
    if clock.unit == previous.unit and clock.every > 0:
        times = Fraction(previous.every, clock.every)
        often = str(times) if times.denominator == 1 else f"{float(times):.3g}"
        return f"fires {spoken(clock)}: {often}x as often as {below}"
    if previous.unit == "steps":
        return f"fires {spoken(clock)}: any token clock is faster than a clock of steps"
    return f"fires {spoken(clock)}; {below} never does"


def _outermost(clock: Clock) -> str:
    if clock.unit == "never":
        return "no `train` section here steps it: frequency 0, trained by whoever trains the whole"
    return f"fires {spoken(clock)}: the slowest clock, so the outermost level"


def _told_apart(problem: Problem, group: list[Problem]) -> str:
    """The name of a problem, with its block where another one has the same."""
    if problem.kind == "slow parameters":
        return "what it trains"
    shared = any(p.name == problem.name and p.id != problem.id for p in group)
    return f"`{'.'.join(problem.id.split('.')[-2:]) if shared else problem.name}`"


def _by_dependency(
    members: list[Problem], below: Iterable[str], group: list[Problem], closure: nx.DiGraph[str], number: str
) -> str:
    names = {p.id: _told_apart(p, group) for p in group}
    for member in members:
        for other in below:
            if closure.has_edge(member.id, other):
                needed, needing = names[member.id], names[other]
                return f"same frequency as {number}, but {needing} at t needs {needed} at t"
    return f"same frequency as {number}, and needed by it at the same time"
