"""The form that takes any unit the run-time library can step through, token by token."""

from __future__ import annotations

from nldsl.plan.closed import closed_gradient
from nldsl.plan.details import SequentialDetail
from nldsl.plan.units import boundary, memories_of
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Memory, Read, Statement, Term, Write


def recognise(block: Block, statements: tuple[int, ...]) -> tuple[SequentialDetail, str] | Refusal:
    """Everything but the constructs that no compiled form supports yet; those are refused by name."""
    memories = memories_of(block, statements)
    body = [block.body[i] for i in statements]
    for memory in memories:
        refusal = _memory(memory, body)
        if refusal is not None:
            return refusal
    changing = {m.name for m in memories}
    for read in (s for s in body if isinstance(s, Read)):
        if read.solve:
            return Refusal("reads through `solve`")
        if read.memory not in changing and _without_weights(block, read.memory):
            return Refusal(f"softmax memory `{read.memory}`, read but never written,")
    incoming, outgoing = boundary(block, statements)
    return SequentialDetail(memories, incoming, outgoing), "one token after the other"


def _without_weights(block: Block, memory: str) -> bool:
    return any(m.name == memory and m.function is None for m in block.memories)


def _memory(memory: Memory, body: list[Statement]) -> Refusal | None:
    if memory.function is None:
        return Refusal(f"softmax memory `{memory.name}` on a cycle")
    if memory.init in ("from", "first"):
        kind = f"from `{memory.init_from}`" if memory.init == "from" else "cut at first order"
        return Refusal(f"the initial state of `{memory.name}` {kind}")
    if memory.clock.unit != "tokens":
        return Refusal(f"a write of `{memory.name}` on a clock of {memory.clock.unit}")
    if memory.reset != "sequence":
        return Refusal(f"`reset` of `{memory.name}` by its own clock")
    writes = [s for s in body if isinstance(s, Write) and s.memory == memory.name]
    if len({w.base_every for w in writes}) > 1:
        return Refusal(f"writes of `{memory.name}` with different `gradient every`")
    for write in writes:
        refusal = _write(memory, write)
        if refusal is not None:
            return refusal
    return None


def _write(memory: Memory, write: Write) -> Refusal | None:
    if write.at_commit:
        return Refusal("`at commit`")
    if write.project is not None:
        return Refusal("`project`")
    for term in write.terms:
        refusal = _term(memory, term)
        if refusal is not None:
            return refusal
    return None


def _term(memory: Memory, term: Term) -> Refusal | None:
    if term.window != 1:
        return Refusal("`over` several tokens")
    if term.weight is not None:
        return Refusal("`weighted` terms")
    if (term.key.shape[0] if term.key.kind == "headed" else 1) != memory.heads:
        return Refusal("several keys per copy of a memory in one write")
    found = closed_gradient(memory, term)
    if isinstance(found, Refusal) and "looks at the memory" not in found.reason:
        return found
    asked = {v.name for v in term.rule.function.inputs}
    if not isinstance(found, Refusal) and asked & {"x", "dy"} and any(g.x is None for g in found.gradients):
        return Refusal(f"rule `{term.rule.name}` on a weight that is not used as `W @ z`")
    return None
