"""NL0507: levels that never fire, at the length of a run or before a reset."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.diagnostics import Diagnostic
from nldsl.spec.program import Block, Call, Memory, Program, Repeat, TaskWrite, Write


def clock_findings(program: Program, length: int | None) -> Iterator[Diagnostic]:
    """Levels whose first commit comes too late for a run of `length` tokens, a truncation or a reset."""
    truncate = program.train.truncate if program.train is not None else 0
    told: set[tuple[str, int]] = set()
    for block in _blocks(program.root, {}):
        written = {s.memory for s in block.body if isinstance(s, Write | TaskWrite)}
        for memory in block.memories:
            if memory.clock.unit != "tokens" or memory.name not in written:
                continue
            key = (memory.level, memory.span.start if memory.span is not None else 0)
            found = _reset(memory) or _run(memory, length) or _truncated(memory, truncate)
            if found is not None and key not in told:
                told.add(key)
                yield found


def _blocks(block: Block, seen: dict[int, Block]) -> Iterator[Block]:
    if id(block) in seen:
        return
    seen[id(block)] = block
    yield block
    for statement in block.body:
        if isinstance(statement, Call | Repeat):
            yield from _blocks(statement.block, seen)


def _reset(memory: Memory) -> Diagnostic | None:
    """A reset that comes before the first commit."""
    if memory.reset != "tokens" or memory.reset_every >= memory.clock.every:
        return None
    return Diagnostic(
        "NL0507",
        f"level `{memory.level}` never fires: `{memory.name}` is reset every {memory.reset_every} tokens, "
        f"before its first commit at {memory.clock.every}",
        memory.span,
        "what is written is never seen",
        "warning",
        help=f"reset it every {memory.clock.every} tokens or later, or let the level tick more often",
    )


def _run(memory: Memory, length: int | None) -> Diagnostic | None:
    """A run that ends before the first commit, or with it."""
    if length is None or memory.clock.every < length:
        return None
    at_end = memory.clock.every == length
    when = "fires only at the last one, where nobody reads it" if at_end else "never fires"
    return Diagnostic(
        "NL0507",
        f"level `{memory.level}` ticks every {memory.clock.every} tokens: in a run of {length} it {when}",
        memory.span,
        "what is written is never seen",
        "warning",
        help=f"use longer sequences, or a clock below {length} tokens",
    )


def _truncated(memory: Memory, truncate: int) -> Diagnostic | None:
    """Back-propagation that is cut before the first commit."""
    if not truncate or memory.clock.every <= truncate:
        return None
    return Diagnostic(
        "NL0507",
        f"level `{memory.level}` ticks every {memory.clock.every} tokens and back-propagation ends after "
        f"{truncate} (`truncate`): no gradient ever passes a commit",
        memory.span,
        "its writes learn nothing from the loss",
        "warning",
        help=f"`truncate {2 * memory.clock.every} tokens`, or a clock below {truncate} tokens",
    )
