"""Reachability: which slow parameters a loss on the outputs can reach.

A value is alive if an output depends on it in a way that has a gradient.  A memory is alive if one of
its reads is; then so is everything its writes are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nldsl.spec.program import (
    Apply,
    Block,
    Call,
    Memory,
    Parameter,
    Program,
    Read,
    Repeat,
    TaskWrite,
    Update,
    Value,
    Write,
)
from nldsl.spec.walk import own_parameters

_NO_GRADIENT = frozenset({"detach", "lt", "le", "gt", "ge", "eq", "ne", "sign"})


@dataclass
class Live:
    """What is alive in one block."""

    values: set[str]
    memories: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    dead: list[tuple[str, Parameter]] = field(default_factory=list)
    drawn: set[str] = field(default_factory=set)
    """Values that an output depends on behind `detach` only: a `weight` there is meant to stay as drawn."""
    blind: frozenset[str] = _NO_GRADIENT
    """Operations that life does not pass."""


def unreached(program: Program, blind: frozenset[str] = _NO_GRADIENT) -> list[tuple[str, Parameter]]:
    """Slow parameters, by path (indices of `repeat` left out), that no loss reaches past what is `blind`."""
    outputs = {v.name for v in program.root.outputs}
    return _live(program.root, outputs, {}, blind).dead


def idle_memories(program: Program) -> list[tuple[Block, list[Memory]]]:
    """Memories whose answers reach nothing that is returned, gradient or not, block by block."""
    outputs = {v.name for v in program.root.outputs}
    known: Known = {}
    _live(program.root, outputs, known, frozenset())
    used: dict[int, tuple[Block, set[str]]] = {}
    for block, live in known.values():
        used.setdefault(id(block), (block, set()))[1].update(live.memories)
    idle = [(block, [m for m in block.memories if m.name not in names]) for block, names in used.values()]
    return [(block, memories) for block, memories in idle if memories]


Known = dict[tuple[int, frozenset[str]], tuple[Block, Live]]


def _live(block: Block, outputs: set[str], known: Known, blind: frozenset[str] = _NO_GRADIENT) -> Live:
    """Go through the block from its outputs until nothing new comes alive; each question is answered once."""
    key = (id(block), frozenset(outputs))
    if key not in known:
        known[key] = block, _settle(block, Live(set(outputs), blind=blind), known)
    return known[key][1]


def _settle(block: Block, live: Live, known: Known) -> Live:
    """The fixed point of one block."""
    while True:
        before = (len(live.values), len(live.memories), len(live.parameters))
        live.dead = []
        for statement in reversed(block.body):
            _step(statement, live, known)
        live.memories |= {m.init_from for m in block.memories if m.init_from and m.name in live.memories}
        if before == (len(live.values), len(live.memories), len(live.parameters)):
            break
    for memory in block.memories:
        if memory.name in live.memories:
            live.parameters |= {p.path for p in memory.parameters}
            live.parameters |= {p.path for p in memory.initial if p is not None}
    live.dead += [(p.path, p) for p in own_parameters(block) if p.path not in live.parameters]
    return live


def _step(statement: object, live: Live, known: Known) -> None:
    """Carry life from what a statement gives to what it takes."""
    if isinstance(statement, Apply):
        _apply(statement, live)
    elif isinstance(statement, Read):
        if statement.out.name in live.values:
            live.memories |= {statement.memory, *(statement.solve[:1] if statement.solve else ())}
            live.values.add(statement.key.name)
    elif isinstance(statement, Write | TaskWrite | Update):
        if statement.memory in live.memories:
            live.values |= {v.name for v in _taken(statement)}
    elif isinstance(statement, Call | Repeat):
        _enter(statement, live, known)


def _apply(statement: Apply, live: Live) -> None:
    """A primitive: to its arguments and parameters."""
    drawn = statement.op == "weight" and statement.out.name in live.drawn
    if statement.out.name not in live.values:
        live.parameters |= {p.path for p in statement.parameters if drawn}
        return
    live.parameters |= {p.path for p in statement.parameters}
    if statement.op not in live.blind:
        live.values |= {a.name for a in statement.args}
    elif statement.op == "detach":
        live.drawn |= {a.name for a in statement.args}


def _taken(statement: Write | TaskWrite | Update) -> Iterator[Value]:
    """The values a write is made of."""
    if isinstance(statement, Update):
        yield statement.value
        return
    if statement.retain is not None:
        yield statement.retain
    if isinstance(statement, TaskWrite):
        yield from (v for _, v in statement.rule.arguments)
        return
    for term in statement.terms:
        yield term.key
        yield term.target
        if term.weight is not None:
            yield term.weight
        yield from (v for _, v in term.rule.arguments)


def _enter(statement: Call | Repeat, live: Live, known: Known) -> None:
    """The callee from those of its outputs that are alive; a `repeat` hands them on to itself."""
    inner = {
        o.name
        for o, out in zip(statement.block.outputs, statement.outs, strict=True)
        if out.name in live.values
    }
    while True:
        found = _live(statement.block, inner, known, live.blind)
        if isinstance(statement, Call):
            break
        carried = {
            o.name
            for o, i in zip(statement.block.outputs, statement.block.inputs, strict=False)
            if i.name in found.values
        }
        if carried <= inner or not inner:
            break
        inner |= carried
    path = statement.path
    live.dead += [(f"{path}.{name}", parameter) for name, parameter in found.dead]
    live.values |= {
        a.name for a, i in zip(statement.args, statement.block.inputs, strict=True) if i.name in found.values
    }
