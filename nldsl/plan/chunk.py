"""Memories whose gradients are held at a base: what happens between two bases is parallel (class N)."""

from __future__ import annotations

from math import gcd

import networkx as nx

from nldsl.library import PRIMITIVES
from nldsl.plan import chunk_cache
from nldsl.plan.chunk_merge import fits, one_write
from nldsl.plan.constants import constants_of
from nldsl.plan.details import ChunkCache, ChunkDetail, ChunkMemory
from nldsl.plan.sequential import outlived
from nldsl.plan.steps import write_steps
from nldsl.plan.units import boundary, defined, memories_of, used
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Apply, Block, Memory, Read, Statement, Update, Value, Write


def recognise(block: Block, statements: tuple[int, ...]) -> tuple[ChunkDetail, str] | Refusal:
    """Every gradient is held over several tokens, steps are linear, and what lies between is stateless."""
    memories = memories_of(block, statements)
    body = [block.body[i] for i in statements]
    for statement in body:
        refusal = _between(statement)
        if refusal is not None:
            return refusal
    members, caches = [], []
    for memory in memories:
        found = outlived(block, memory) or _found(memory, body)
        if isinstance(found, Refusal):
            return Refusal(f"`{memory.name}`: {found.reason}")
        if isinstance(found, ChunkCache):
            caches.append(found)
        else:
            members.append(found)
    if not members and not any(resets_of(c.memory) for c in caches):
        return Refusal(
            "no memory with weights on a token clock is written, and none forgets by its own clock"
        )
    if any(isinstance(s, Read) and s.memory not in {m.name for m in memories} for s in body):
        return Refusal("a memory that is never written is read on the way back")
    refusal = _feeds_its_write(body, members, caches) or _clocks(members, caches)
    if refusal is not None:
        return refusal
    grid = grid_of(members, caches)
    incoming, outgoing = boundary(block, statements)
    recorded = _recorded(body, members, caches, incoming)
    families, written = _families(members), recorded == ""
    detail = ChunkDetail(grid, tuple(members), families, incoming, outgoing, tuple(caches), written)
    return detail, _reason(members, caches, grid) + _backward(recorded, _constant(block, members))


def _found(memory: Memory, body: list[Statement]) -> ChunkMemory | ChunkCache | Refusal:
    return chunk_cache.recognise(memory, body) if memory.function is None else _member(memory, body)


def resets_of(memory: Memory) -> tuple[int, ...]:
    """The clock of its resets, if it has one of its own."""
    return (memory.reset_every,) if memory.reset == "tokens" else ()


def clocks_of(member: ChunkMemory) -> tuple[int, ...]:
    """What has to fall on chunk ends: commits, bases, resets."""
    memory = member.memory
    every = () if member.live else (memory.clock.every,)
    return (*every, member.write.base_every, *resets_of(memory))


def grid_of(members: list[ChunkMemory], caches: list[ChunkCache]) -> int:
    """The longest chunk at whose ends all of them fall."""
    clocks = [c for m in members for c in clocks_of(m)]
    return gcd(*clocks, *(c for cache in caches for c in resets_of(cache.memory)))


def _reason(members: list[ChunkMemory], caches: list[ChunkCache], grid: int) -> str:
    if not members:
        return f"its pairs are forgotten by its own clock: attention within {grid} tokens is parallel"
    live = [m.memory.name for m in members if m.live]
    if not live and caches:
        return (
            f"gradients and reads see the last commit, attention what they tell: {grid} tokens are parallel"
        )
    if not live:
        older = any(m.write.base_every != m.memory.clock.every for m in members)
        seen = (
            "reads see the last commit, gradients a base"
            if older
            else "reads and gradients see the last commit"
        )
        return f"{seen}: chunks of {grid} tokens are parallel"
    shown = ", ".join(f"`{n}`" for n in live)
    return f"gradients are held at a base, reads of {shown} follow: chunks of {grid} tokens are parallel"


def _recorded(
    body: list[Statement], members: list[ChunkMemory], caches: list[ChunkCache], incoming: tuple[Value, ...]
) -> str | None:
    """Why the backward pass of a self-referential part is recorded; "" where it is written out.

    `None`: what is written does not depend on what is read.
    """
    outside = {v.name for v in incoming}
    if all(v.name in outside for s in body if isinstance(s, Write) for v in used(s)):
        return None
    if caches:
        return "attention stands in the step"
    for member in members:
        if member.live:
            return f"reads of `{member.memory.name}` follow its running state"
        if member.write.at_commit:
            return f"the rule of `{member.memory.name}` runs at the commit"
        if not member.plain:
            return f"the write of `{member.memory.name}` is more than one term of plain gradients with a gate"
    return ""


def _constant(block: Block, members: list[ChunkMemory]) -> bool:
    """Whether no outer gradient goes through what is written, at bases that are taken as they are."""
    known = constants_of(block)
    taken = all(v.name in known for m in members for v in used(m.write))
    return taken and all(m.memory.init in ("first", "fixed") for m in members)


def _backward(recorded: str | None, constant: bool) -> str:
    if recorded is None:
        return ""
    if not recorded and constant:
        return (
            "; no outer gradient goes through what is written: its backward pass, written out, is that of "
            "reads and of what writes leave"
        )
    if recorded:
        return f"; its backward pass is always recorded: {recorded}"
    return (
        "; its backward pass is written out, for checkpoints and, where every operation has a formula, "
        "for compiled steps"
    )


def _between(statement: Statement) -> Refusal | None:
    if isinstance(statement, Read):
        return Refusal("a read through `solve`") if statement.solve else None
    if isinstance(statement, Write):
        return None
    if isinstance(statement, Apply):
        stateful = PRIMITIVES[statement.op].stateful
        return Refusal(f"`{statement.op}` carries state on the way back to a memory") if stateful else None
    if isinstance(statement, Update):
        return None
    return Refusal(f"a {type(statement).__name__.lower()} lies on the way back to a memory")


def _clocks(members: list[ChunkMemory], caches: list[ChunkCache]) -> Refusal | None:
    """One loop needs one count and a chunk of more than one token."""
    if grid_of(members, caches) == 1:
        found = [clocks_of(m) for m in members] + [resets_of(c.memory) for c in caches]
        each = sorted({c for cs in found for c in cs})
        if len(each) == 1:
            return Refusal("commits or gradients at every token leave no chunk")
        return Refusal(f"clocks of {' and '.join(map(str, each))} tokens have no common chunk")
    resets = {(m.memory.reset, m.memory.reset_every) for m in members}
    if any(map(starts_again, members)):
        return _started(members, caches)
    own = {(c.memory.reset, c.memory.reset_every) for c in caches if resets_of(c.memory)}
    # A count since the start of the sequence tells any other clock; one that outlives it does not.
    if len(resets) > 1 or len(own) > 1 or (own and {r for r in resets if r[0] != "sequence"} - own):
        return Refusal("its memories reset at different times")
    return None


def starts_again(member: ChunkMemory) -> bool:
    """Whether every reset starts it from what another memory shows."""
    return member.memory.reset == "tokens" and member.memory.init == "from"


def _started(members: list[ChunkMemory], caches: list[ChunkCache]) -> Refusal | None:
    """Memories that start from others: one of the unit has counted since the sequence began."""
    named = {m.memory.name for m in members}
    problems = (
        (bool(caches), "attention beside memories that start from another"),
        (
            any(starts_again(m) and m.memory.init_from not in named for m in members),
            "a reset starts it from a memory that is never written",
        ),
        (
            all(m.memory.reset != "sequence" for m in members),
            "all its memories reset by clocks of their own",
        ),
        (any(m.memory.reset == "never" for m in members), "a memory that outlives the sequence"),
        (any(m.counted or m.write.at_commit for m in members), "steps are numbered since different resets"),
    )
    return next((Refusal(reason) for found, reason in problems if found), None)


def _member(memory: Memory, body: list[Statement]) -> ChunkMemory | Refusal:
    if memory.function is None or memory.clock.unit != "tokens":
        return Refusal("not a memory with weights on a token clock")
    write = one_write(memory, body)
    if isinstance(write, Refusal):
        return write
    live = memory.clock.every == 1
    refusal = _form(memory, write) or _sizes(memory, write, body)
    if refusal is not None:
        return refusal
    steps = write_steps(memory, write)
    if isinstance(steps, Refusal):
        return steps
    member = ChunkMemory(memory, write, steps, live)
    refusal = _dual(member) or fits(memory, body, steps) or (_live(memory, write) if live else None)
    return refusal or member


def _dual(member: ChunkMemory) -> Refusal | None:
    """A rule that steps in a dual moves nothing else; what it makes of the dual is made once per chunk."""
    write = member.write
    if not member.mirrored:
        return None
    rule = write.terms[0].rule.name
    problems = (
        (member.live, f"reads follow the weights that rule `{rule}` makes of its dual at every token"),
        (len(write.terms) > 1, f"rule `{rule}` steps in a dual, beside other terms"),
        (write.retain is not None, f"retention meets rule `{rule}`, which steps in a dual"),
        (write.toward != "zero", f"rule `{rule}` steps in a dual of the distance from the initial state"),
        (
            member.memory.reset == "tokens",
            f"a reset by its own clock meets the dual of rule `{rule}`",
        ),
    )
    return next((Refusal(reason) for found, reason in problems if found), None)


def _form(memory: Memory, write: Write) -> Refusal | None:
    """Clauses that leave nothing to do in parallel."""
    again = memory.reset == "tokens" and memory.init == "from"
    ends = memory.reset == "tokens" and memory.reset_every % max(memory.clock.every, write.base_every)
    problems = (
        (write.base_every == 1, "reads or gradients see the state of every token"),
        (write.project is not None and not write.at_commit, "the write projects its weights at every token"),
        (write.at_commit and memory.clock.every == 1, "the rule runs at every token"),
        (write.retain is not None and write.retain_axis == "element", "retention per element"),
        (again and write.toward == "init", "retention toward a start that is another one's at every reset"),
        (bool(ends), "a reset falls into a chunk"),
    )
    return next((Refusal(reason) for found, reason in problems if found), None)


def _sizes(memory: Memory, write: Write, body: list[Statement]) -> Refusal | None:
    queries = [s.key for s in body if isinstance(s, Read) and s.memory == memory.name]
    many = any((q.shape[0] if q.kind == "headed" else 1) != memory.heads for q in queries)
    if memory.clock.every == 1 and many:
        return Refusal("several queries per copy of a running state")
    if write.at_commit and any(v.kind == "matrix" for t in write.terms for _, v in t.rule.arguments):
        return Refusal("a rate per element")
    return None


def _live(memory: Memory, write: Write) -> Refusal | None:
    """Reads of the running state need the gates as kernels, and every weight as `W @ z`."""
    function = memory.function
    assert function is not None
    weights = {w.name for w in function.weights if w.kind == "matrix"}
    for apply in function.body:
        plain = apply.op == "matmul" and apply.args[0].name in weights and apply.args[1].kind == "vector"
        if any(a.name in weights for a in (apply.args[1:] if plain else apply.args)):
            return Refusal(f"map `{function.name}` uses a weight otherwise than as `W @ z`")
    return None


def _feeds_its_write(
    body: list[Statement], members: list[ChunkMemory], caches: list[ChunkCache]
) -> Refusal | None:
    """A read of a running state needs the write of that memory first, which must not need the read."""
    live = {m.memory.name for m in members if m.live} | {c.memory.name for c in caches}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for statement in body:
        for value in used(statement):
            ends = [v.name for v in defined(statement)]
            if isinstance(statement, Write) and statement.memory in live:
                ends = [f"write {statement.memory}"]
            graph.add_edges_from((value.name, end) for end in ends)
        if isinstance(statement, Read) and statement.memory in live:
            graph.add_edge(f"write {statement.memory}", statement.out.name)
    if nx.is_directed_acyclic_graph(graph):
        return None
    shown = ", ".join(f"`{n}`" for n in sorted(live))
    return Refusal(f"what is read of the running state of {shown} feeds its own writes")


def _families(members: list[ChunkMemory]) -> tuple[tuple[str, ...], ...]:
    """Memories that differ in their targets and initial states only run side by side."""
    groups: dict[object, list[str]] = {}
    for member in members:
        groups.setdefault(_alike(member), []).append(member.memory.name)
    return tuple(tuple(g) for g in groups.values())


def _stacks(member: ChunkMemory) -> bool:
    """Whether its steps fit an axis of memories: plain ones, or those of one momentum that starts at zero."""
    if member.plain:
        return True
    one = len(member.write.terms) == 1 and member.write.retain_axis == "scalar"
    term = member.write.terms[0]
    slots = all(s.shape is None and s.initial is None and s.clock is None for s in term.rule.slots)
    filtered = all(
        s.products == 1 and s.momentum is not None and all(part is None for part in (s.rate, s.keep, s.dual))
        for s in member.steps[0]
    )
    return one and slots and filtered and term.window == 1 and term.weight is None


def _alike(member: ChunkMemory) -> object:
    memory, write = member.memory, member.write
    assert memory.function is not None
    owned = any(a.parameters for a in memory.function.body) or member.live or not _stacks(member)
    alone = owned or write.at_commit or memory.reset != "sequence"
    return (
        memory.name if alone else "",
        memory.function,
        memory.heads,
        memory.per_head,
        memory.clock,
        memory.init,
        tuple(p is None for p in memory.initial),
        tuple(
            (
                term.key,
                term.target.kind if term.target.kind in ("headed", "vector") else term.target,
                term.objective,
                term.rule.function,
                term.rule.arguments,
            )
            for term in write.terms
        ),
        (write.retain, write.retain_log, write.toward, write.base_every),
    )
