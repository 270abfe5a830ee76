"""Cut a block into units: the strongly connected parts of its statements over time.

A read of a memory needs all writes of earlier tokens, a write needs the state before it, so all
statements that touch one memory belong together.  Whatever lies on a cycle through a memory (a key
that is read from a memory which the key then writes) joins them.  Everything else can be computed
for all tokens at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import networkx as nx

from nldsl.spec.program import (
    Apply,
    Block,
    Call,
    Memory,
    Read,
    Repeat,
    Statement,
    TaskWrite,
    Term,
    Update,
    Value,
    Write,
)


def used(statement: Statement) -> tuple[Value, ...]:
    """The values a statement needs."""
    if isinstance(statement, Apply | Call | Repeat):
        return statement.args
    if isinstance(statement, Read):
        return (statement.key,)
    if isinstance(statement, Update):
        return tuple(v for v in (statement.value, statement.value_log) if v is not None)
    if isinstance(statement, TaskWrite):
        own = (*(value for _, value in statement.rule.arguments), statement.retain)
        return tuple(v for v in own if v is not None)
    gate = tuple(v for v in (statement.retain, statement.retain_log) if v is not None)
    return (*(v for term in statement.terms for v in _term_values(term)), *gate)


def _term_values(term: Term) -> Iterator[Value]:
    yield term.key
    yield term.target
    yield from (value for _, value in term.rule.arguments)
    if term.weight is not None:
        yield term.weight


def defined(statement: Statement) -> tuple[Value, ...]:
    """The values a statement makes."""
    if isinstance(statement, Call | Repeat):
        return statement.outs
    return (statement.out,) if isinstance(statement, Apply | Read) else ()


def touched(statement: Statement) -> tuple[str, ...]:
    """The memories a statement reads or changes while the sequence runs."""
    if isinstance(statement, Read):
        return (statement.memory, statement.solve[0]) if statement.solve else (statement.memory,)
    return (statement.memory,) if isinstance(statement, Write | Update) else ()


def written_in_forward(block: Block) -> frozenset[str]:
    """Memories whose state changes in `forward` (task writes happen in `learn` only)."""
    return frozenset(s.memory for s in block.body if isinstance(s, Write | Update))


def dependency_graph(block: Block) -> nx.DiGraph[int]:
    """Statement -> statement edges: data flow, and all statements of a changing memory as a cycle."""
    maker = {value.name: i for i, s in enumerate(block.body) for value in defined(s)}
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(block.body)))
    for i, statement in enumerate(block.body):
        graph.add_edges_from((maker[v.name], i) for v in used(statement) if v.name in maker)
    changing = written_in_forward(block)
    # A memory whose resets start from another one's present state runs beside it.
    coupled = [{m.name, m.init_from} for m in block.memories if m.reset == "tokens" and m.init_from]
    for names in [*({m} for m in sorted(changing)), *(c & changing for c in coupled if c & changing)]:
        members = [i for i, s in enumerate(block.body) if names & set(touched(s))]
        graph.add_edges_from(zip(members, [*members[1:], *members[:1]], strict=True))
    return graph


def partition(block: Block) -> tuple[tuple[int, ...], ...]:
    """The units of `block`: tuples of statement indices, in an order of computation.

    Example:
        A block without memories gives one unit per statement, in program order.
    """
    graph = dependency_graph(block)
    condensed = nx.condensation(graph)
    members = {node: tuple(sorted(condensed.nodes[node]["members"])) for node in condensed}
    order = nx.lexicographical_topological_sort(condensed, key=lambda node: members[node][0])
    return tuple(members[node] for node in order)


def feeds_itself(block: Block, statements: tuple[int, ...]) -> bool:
    """Whether a statement of the unit needs a value that another one of the unit makes."""
    made = {v.name for i in statements for v in defined(block.body[i])}
    return any(v.name in made for i in statements for v in used(block.body[i]))


def turns_of(block: Block, statements: tuple[int, ...]) -> tuple[tuple[Apply, ...], ...] | None:
    """What stands in front of every read of a unit whose reads ask the memory again, and nothing else.

    `None` if what is written, or a gate, is made of a read, or if something else than a value is.

    Example:
        `y = S[tanh(S[q])]`: nothing in front of the first read, `tanh` in front of the second.
    """
    body = [block.body[i] for i in statements]
    made = {v.name for s in body for v in defined(s)}
    waiting: list[Apply] = []
    turns = []
    for statement in body:
        if isinstance(statement, Apply):
            waiting.append(statement)
        elif isinstance(statement, Read):
            turns.append(tuple(waiting))
            waiting.clear()
        elif not isinstance(statement, Write | Update) or any(v.name in made for v in used(statement)):
            return None
    return None if waiting else tuple(turns)


def memories_of(block: Block, statements: Iterable[int]) -> tuple[Memory, ...]:
    """The memories that change inside these statements, in declaration order."""
    changing = written_in_forward(block)
    names = {m for i in statements for m in touched(block.body[i]) if m in changing}
    return tuple(m for m in block.memories if m.name in names)


def boundary(block: Block, statements: tuple[int, ...]) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """(values that come in from outside, values that are needed outside), in program order."""
    inside = {v.name for i in statements for v in defined(block.body[i])}
    incoming = {v.name: v for i in statements for v in used(block.body[i]) if v.name not in inside}
    needed = {v.name for v in block.outputs}
    rest = set(range(len(block.body))) - set(statements)
    needed |= {v.name for i in rest for v in used(block.body[i])}
    outgoing = [v for i in statements for v in defined(block.body[i]) if v.name in needed]
    return tuple(incoming.values()), tuple(outgoing)
