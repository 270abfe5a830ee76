"""Data flow through a program: who makes what for whom, at one token.

A value carries its *sources*: the problems whose state shaped it since the last read of a memory (a
read starts afresh: what shaped the key has shaped the memory's answer, not the value).  Where a
value meets a memory or, coming from another block, a slow parameter, its sources become links.

Slow parameters occur many times in one problem; every occurrence is a point of its own here, so that
order is not lost (an embedding and a head of one model lie at its two ends).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import networkx as nx

from nldsl.graph.places import Place
from nldsl.spec.program import (
    Apply,
    Block,
    Call,
    Memory,
    Parameter,
    Program,
    Read,
    Repeat,
    Rule,
    Statement,
    TaskWrite,
    Update,
    Value,
    Write,
)

Point = tuple[str, int]
"""A problem (or port) and the occurrence of it."""

_CARRIES = {"scale": "retention", "add": "increment", "set": "state"}


@dataclass(frozen=True)
class Source:
    """A point that shaped a value.  `crossed`: it came in through an input of the block."""

    point: Point
    crossed: bool = False
    grad: bool = True


@dataclass(frozen=True)
class Link:
    """`source` shaped what `target` uses as `carries`.

    `makes`: it makes the target's context (a write), instead of conditioning its forward pass.
    `wraps`: it comes from the copy before, in a repeat.
    """

    source: Source
    target: Point
    carries: str
    makes: bool
    wraps: bool = False


@dataclass
class Flow:
    """What the walk over a program finds; filled once, then only read."""

    links: list[Link] = field(default_factory=list)
    needs: nx.DiGraph[str] = field(default_factory=nx.DiGraph)
    """A -> B: the state of B at token t needs the state of A at token t."""
    order: nx.DiGraph[Point] = field(default_factory=nx.DiGraph)
    outputs: tuple[Source, ...] = ()


def in_order(sources: Iterable[Source]) -> list[Source]:
    """Sources as the walk met them: a set has no order of its own."""
    return sorted(sources, key=lambda s: (s.point[1], s.point[0], s.crossed, s.grad))


Sources = frozenset[Source]
_NOTHING: Sources = frozenset()


def analyse(program: Program) -> Flow:
    """Walk `program` once, one copy per repeat."""
    walker = _Walker(Flow())
    inputs = [frozenset({Source((f"input:{v.name}", 0), crossed=True)}) for v in program.root.inputs]
    place = Place.root(program)
    outputs, _ = walker.block(program.root, place, inputs, [frozenset() for _ in inputs])
    walker.flow.outputs = tuple(in_order(walker.latest(_merge(outputs))))
    return walker.flow


class _Walker:
    """One pass in program order; `block` returns the sources and needs of the block's outputs."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.occurrences = 0
        self.zone: dict[str, str] = {}

    def block(
        self, block: Block, place: Place, inputs: list[Sources], needs: list[frozenset[str]]
    ) -> tuple[list[Sources], list[frozenset[str]]]:
        scope = _Scope(block, place, self)
        for value, sources, needed in zip(block.inputs, inputs, needs, strict=True):
            scope.sources[value.name] = sources
            scope.needs[value.name] = needed
        for memory in block.memories:
            scope.declare(memory)
        for statement in block.body:
            scope.visit(statement)
        return [scope.of(v) for v in block.outputs], [scope.needed(v) for v in block.outputs]

    def link(self, sources: Iterable[Source], target: Point, carries: str, makes: bool) -> None:
        for source in in_order(sources):
            self.flow.links.append(Link(source, target, carries, makes))
            if source.point != target:
                self.flow.order.add_edge(source.point, target)

    def occurrence(self, id: str, zone: str) -> Point:
        self.occurrences += 1
        self.zone[id] = zone
        return id, self.occurrences

    def latest(self, sources: Sources) -> Sources:
        """`sources` without those that have already shaped another one of them."""
        graph = self.flow.order
        points = [s.point for s in sources if s.point in graph]
        after = {p: nx.descendants(graph, p) for p in points}
        # Memories that generate each other's context reach each other: neither comes before the other.
        stale = {p for p in points for q in points if q in after[p] and p not in after[q]}
        return frozenset(s for s in sources if s.point not in stale)

    def unwrap(self, carried: dict[Point, Sources]) -> None:
        """Put what one copy hands on in place of the marks that stood for the copy before."""
        kept = [link for link in self.flow.links if link.source.point not in carried]
        for link in self.flow.links:
            for source in in_order(carried.get(link.source.point, ())):
                came = Source(source.point, True, source.grad and link.source.grad)
                kept.append(Link(came, link.target, link.carries, link.makes, wraps=True))
        self.flow.links = kept
        self.flow.order.remove_nodes_from(carried)


class _Scope:
    """One block while it is walked."""

    def __init__(self, block: Block, place: Place, walker: _Walker) -> None:
        self.place = place
        self.walker = walker
        self.memories = {m.name: m for m in block.memories}
        self.sources: dict[str, Sources] = {}
        self.needs: dict[str, frozenset[str]] = {}
        self.written: set[str] = set()

    def of(self, value: Value) -> Sources:
        return self.sources.get(value.name, _NOTHING)

    def needed(self, value: Value) -> frozenset[str]:
        return self.needs.get(value.name, frozenset())

    def point(self, memory: str) -> Point:
        return self.place.memory_id(self.memories[memory]), 0

    def declare(self, memory: Memory) -> None:
        target = self.point(memory.name)
        self.walker.zone[target[0]] = self.place.zone
        self.walker.flow.needs.add_node(target[0])
        for parameter in memory.parameters:
            self._from_slow(parameter, target, "map")
        if memory.init_from is not None:
            self.walker.link([Source(self.point(memory.init_from))], target, "initial state", makes=False)
        for start in memory.initial:
            if start is not None and not start.fixed and memory.trained is None:
                self._from_slow(start, target, "initial state")

    def _from_slow(self, parameter: Parameter, target: Point, carries: str) -> None:
        point = self.walker.occurrence(self.place.slow_id(parameter), self.place.home)
        self.walker.link([Source(point)], target, carries, makes=False)

    def visit(self, statement: Statement) -> None:
        match statement:
            case Apply():
                self._apply(statement)
            case Read():
                self._read(statement)
            case Write():
                self._write(statement)
            case Update():
                self._use(statement.memory, statement.value, _CARRIES[statement.op], makes=True)
                self.written.add(statement.memory)
            case TaskWrite():
                self._rates(statement.memory, statement.rule)
                if statement.retain is not None:
                    self._use(statement.memory, statement.retain, "retention", makes=True)
            case Call():
                self._call(statement)
            case Repeat():
                self._repeat(statement)

    def _apply(self, statement: Apply) -> None:
        sources = _merge(self.of(a) for a in statement.args)
        self.needs[statement.out.name] = frozenset().union(*(self.needed(a) for a in statement.args))
        if statement.op == "detach":
            sources = frozenset(Source(s.point, s.crossed, False) for s in sources)
        moved = [p for p in statement.parameters if p.schedule is None]
        for id in dict.fromkeys(map(self.place.slow_id, moved)):
            point = self.walker.occurrence(id, self.place.home)
            foreign = [s for s in sources if self._foreign(s)]
            self.walker.link(foreign, point, "input", makes=False)
            sources |= {Source(point)}
        self.sources[statement.out.name] = sources

    def _foreign(self, source: Source) -> bool:
        """Whether a source lies in another block than the slow parameters that meet it here."""
        return self.walker.zone.get(source.point[0], "") != self.place.home

    def _read(self, statement: Read) -> None:
        memories = [statement.memory, *([statement.solve[0]] if statement.solve else [])]
        self._use(statement.memory, statement.key, "query", makes=False)
        if statement.solve and not statement.lone:
            self.walker.link(
                [Source(self.point(statement.solve[0]))], self.point(statement.memory), "solve", False
            )
        fresh = {self.point(m)[0] for m in memories if m in self.written and self._visible_at_once(m)}
        self.needs[statement.out.name] = self.needed(statement.key) | fresh
        self.sources[statement.out.name] = frozenset(Source(self.point(m)) for m in memories)

    def _visible_at_once(self, memory: str) -> bool:
        clock = self.memories[memory].clock
        return clock.unit == "always" or (clock.unit == "tokens" and clock.every == 1)

    def _write(self, statement: Write) -> None:
        for term in statement.terms:
            self._use(statement.memory, term.key, "key", makes=True)
            self._use(statement.memory, term.target, "value", makes=True)
            self._rates(statement.memory, term.rule)
            if term.weight is not None:
                self._use(statement.memory, term.weight, "weight", makes=True)
        if statement.retain is not None:
            self._use(statement.memory, statement.retain, "retention", makes=True)
        self.written.add(statement.memory)

    def _rates(self, memory: str, rule: Rule) -> None:
        for name, value in rule.arguments:
            self._use(memory, value, "rate" if name == "lr" else name, makes=True)

    def _use(self, memory: str, value: Value, carries: str, makes: bool) -> None:
        target = self.point(memory)
        self.walker.link(self.of(value), target, carries, makes)
        if makes:
            self.walker.flow.needs.add_edges_from(
                (n, target[0]) for n in self.needed(value) if n != target[0]
            )

    def _call(self, statement: Call) -> None:
        inputs = [self._entering(a) for a in statement.args]
        needs = [self.needed(a) for a in statement.args]
        outputs, needed = self.walker.block(statement.block, self.place.call(statement), inputs, needs)
        self._bind(statement.outs, outputs, needed)

    def _repeat(self, statement: Repeat) -> None:
        walker, carried = self.walker, len(statement.outs)
        inputs = [self.of(a) for a in statement.args]
        marks = [Source((f"wrap:{self.place.path}.{statement.path}:{i}", 0), True) for i in range(carried)]
        if statement.count > 1:
            inputs = [s | {marks[i]} if i < carried else s for i, s in enumerate(inputs)]
        needs = [self.needed(a) for a in statement.args]
        outputs, needed = walker.block(statement.block, self.place.repeat(statement), inputs, needs)
        points = {m.point for m in marks}
        clean = [walker.latest(frozenset(s for s in out if s.point not in points)) for out in outputs]
        walker.unwrap({m.point: clean[i] for i, m in enumerate(marks)})
        self._bind(statement.outs, clean, needed)

    def _entering(self, value: Value) -> Sources:
        """What a block sees of an argument; stale sources are forgotten, so long chains stay cheap."""
        self.sources[value.name] = self.walker.latest(self.of(value))
        return frozenset(Source(s.point, True, s.grad) for s in self.of(value))

    def _bind(self, outs: tuple[Value, ...], sources: list[Sources], needs: list[frozenset[str]]) -> None:
        for value, carried, needed in zip(outs, sources, needs, strict=True):
            self.sources[value.name] = carried
            self.needs[value.name] = needed


def _merge(parts: Iterable[Sources]) -> Sources:
    return frozenset().union(*parts)
