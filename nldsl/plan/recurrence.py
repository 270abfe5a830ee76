"""Matrix memories written every token: classes D (Hebbian) and R (delta rule)."""

from __future__ import annotations

from nldsl.plan.closed import matrix_step, plain_write
from nldsl.plan.details import ReadState, RecurrenceDetail
from nldsl.plan.units import memories_of, turns_of
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Block, Memory, Read, Statement, Update, Write


def recognise(block: Block, statements: tuple[int, ...]) -> tuple[RecurrenceDetail, str] | Refusal:
    """One matrix memory, one write of one term, at most one scalar decay above or in the write."""
    memories = memories_of(block, statements)
    if len(memories) != 1 or memories[0].function is None:
        return Refusal("not one memory with weights")
    turns = turns_of(block, statements)
    if turns is None:
        return Refusal("what it reads feeds its own keys, values or gates")
    memory, body = memories[0], [block.body[i] for i in statements]
    if any(isinstance(s, Read) and s.solve is not None for s in body):
        return Refusal("a read through `solve`")
    shape = _shape(memory, body)
    if isinstance(shape, Refusal):
        return shape
    write, scale = shape
    refusal = plain_write(memory, write) or _simple(memory, write) or _grouped(memory, body)
    if refusal is not None:
        return refusal
    step = matrix_step(memory, write.terms[0])
    if isinstance(step, Refusal):
        return step
    erase, add, reason = step
    decay = (scale.value_log or scale.value) if scale is not None else (write.retain_log or write.retain)
    is_log = (scale.value_log if scale is not None else write.retain_log) is not None
    reads = tuple((s, _seen(body, s, write, scale)) for s in body if isinstance(s, Read))
    detail = RecurrenceDetail(
        memory, write, decay, is_log, "decayed" if scale is not None else "raw", reads, erase, add, turns
    )
    return detail, reason


def _shape(memory: Memory, body: list[Statement]) -> tuple[Write, Update | None] | Refusal:
    """The write and the decay above it, if the statements have that shape."""
    writes = [s for s in body if isinstance(s, Write)]
    updates = [s for s in body if isinstance(s, Update)]
    if len(writes) != 1 or len(updates) > 1:
        return Refusal(f"{len(writes)} writes and {len(updates)} direct updates per token")
    if memory.clock.every != 1 or writes[0].base_every != 1:
        return Refusal("reads or gradients see an older state")
    if not updates:
        return writes[0], None
    scale = updates[0]
    if scale.op != "scale" or scale.axis != "scalar":
        return Refusal(f"the state is changed by `{scale.op}` along {scale.axis}")
    if body.index(scale) > body.index(writes[0]) or writes[0].retain is not None:
        return Refusal("it decays twice, or below the write")
    return writes[0], scale


def _simple(memory: Memory, write: Write) -> Refusal | None:
    if write.toward != "zero" and write.retain is not None:
        return Refusal("it decays toward its initial state")
    if write.toward != "zero":
        return Refusal("its rule acts on the distance from the initial state")
    term = write.terms[0]
    heads = term.key.shape[0] if term.key.kind == "headed" else 1
    return Refusal("several keys per copy") if heads != memory.heads else None


def _grouped(memory: Memory, body: list[Statement]) -> Refusal | None:
    queries = [s.key for s in body if isinstance(s, Read)]
    many = any((q.shape[0] if q.kind == "headed" else 1) != memory.heads for q in queries)
    return Refusal("several queries per copy") if many else None


def _seen(body: list[Statement], read: Read, write: Write, scale: Update | None) -> ReadState:
    """Which state a read sees, by its place among the statements of the token."""
    position = body.index(read)
    if position > body.index(write):
        return "after"
    return "decayed" if scale is not None and position > body.index(scale) else "before"
