"""Memories written in chunks: reads and gradients see the last commit, so a chunk is parallel (class N)."""

from __future__ import annotations

from math import gcd

from nldsl.library import PRIMITIVES
from nldsl.plan.closed import plain_write, weight_steps
from nldsl.plan.details import ChunkDetail, ChunkMemory
from nldsl.plan.units import boundary, memories_of
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Apply, Block, Memory, Read, Statement, Write


def recognise(block: Block, statements: tuple[int, ...]) -> tuple[ChunkDetail, str] | Refusal:
    """Every memory commits in chunks, steps by rank-one terms, and what lies between is stateless."""
    memories = memories_of(block, statements)
    body = [block.body[i] for i in statements]
    for statement in body:
        refusal = _between(statement)
        if refusal is not None:
            return refusal
    members = []
    for memory in memories:
        member = _member(memory, body)
        if isinstance(member, Refusal):
            return Refusal(f"`{memory.name}`: {member.reason}")
        members.append(member)
    if not members:
        return Refusal("no memory is written")
    if any(isinstance(s, Read) and s.memory not in {m.name for m in memories} for s in body):
        return Refusal("a memory that is never written is read on the way back")
    grid = gcd(*(m.memory.clock.every for m in members))
    if grid == 1:
        clocks = ", ".join(str(m.memory.clock.every) for m in members)
        return Refusal(f"clocks {clocks} have no common chunk")
    incoming, outgoing = boundary(block, statements)
    detail = ChunkDetail(grid, tuple(members), _families(members), incoming, outgoing)
    return detail, f"reads and gradients see the last commit: chunks of {grid} tokens are parallel"


def _between(statement: Statement) -> Refusal | None:
    if isinstance(statement, Read):
        return Refusal("a read through `solve`") if statement.solve else None
    if isinstance(statement, Write):
        return None
    if isinstance(statement, Apply):
        stateful = PRIMITIVES[statement.op].stateful
        return Refusal(f"`{statement.op}` carries state on the way back to a memory") if stateful else None
    return Refusal(f"a {type(statement).__name__.lower()} lies on the way back to a memory")


def _member(memory: Memory, body: list[Statement]) -> ChunkMemory | Refusal:
    writes = [s for s in body if isinstance(s, Write) and s.memory == memory.name]
    if memory.function is None or memory.clock.unit != "tokens":
        return Refusal("not a memory with weights on a token clock")
    if len(writes) != 1:
        return Refusal(f"{len(writes)} writes per token")
    write = writes[0]
    if memory.clock.every == 1:
        return Refusal("it is committed every token")
    if write.base_every != memory.clock.every:
        return Refusal(f"gradients every {write.base_every} tokens, commits every {memory.clock.every}")
    refusal = plain_write(memory, write)
    if refusal is not None:
        return refusal
    term = write.terms[0]
    used = [term.key, *(s.key for s in body if isinstance(s, Read) and s.memory == memory.name)]
    if any((v.shape[0] if v.kind == "headed" else 1) != memory.heads for v in used):
        return Refusal("several queries or keys per copy")
    steps = weight_steps(memory, term)
    return steps if isinstance(steps, Refusal) else ChunkMemory(memory, write, term, steps)


def _families(members: list[ChunkMemory]) -> tuple[tuple[str, ...], ...]:
    """Memories that differ in their targets and initial states only run side by side."""
    groups: dict[object, list[str]] = {}
    for member in members:
        groups.setdefault(_alike(member), []).append(member.memory.name)
    return tuple(tuple(g) for g in groups.values())


def _alike(member: ChunkMemory) -> object:
    memory, write, term = member.memory, member.write, member.term
    assert memory.function is not None
    owned = any(a.parameters for a in memory.function.body)
    return (
        memory.name if owned else "",
        memory.function,
        memory.heads,
        memory.per_head,
        memory.clock,
        tuple(p is None for p in memory.initial),
        term.key,
        term.target.kind if term.target.kind in ("headed", "vector") else term.target,
        term.objective,
        term.rule.function,
        term.rule.arguments,
        (write.retain, write.retain_log, write.toward),
    )
