"""Memories on a clock of steps: one for the whole batch, moved by `train` every N steps.

`F minimizes task by rule` on a clock of steps is Eq. 71 on the outer clock: the task's gradients of N steps
are gathered, then the rule is applied once.  Within a sequence such a memory is a plain map; its weights are
parameters that a group of their own trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from nldsl.catalog.selectors import matches
from nldsl.source import Span
from nldsl.spec.inner_schedules import without_schedules
from nldsl.spec.program import (
    Block,
    Call,
    GroupRule,
    Memory,
    Program,
    Repeat,
    Statement,
    TaskWrite,
    Update,
    Write,
)
from nldsl.spec.session import Session
from nldsl.spec.walk import parameters_of


def settle(session: Session, program: Program, span: Span) -> Program:
    """The program with every memory on a clock of steps as a plain map that `train` moves.

    Errors: NL0505 for a memory that the trainer cannot move, NL0509 for one that is written while tokens
    arrive or by nobody.
    """
    root = _settled(session, program.root, span, {})
    if root is program.root:
        return program
    program = replace(program, root=root)
    if program.train is not None:
        groups = (*step_groups(root), *program.train.groups)
        program = replace(program, train=replace(program.train, groups=groups))
    return program


def step_groups(root: Block) -> tuple[GroupRule, ...]:
    """The groups of the memories on a clock of steps, whose parameters no other group trains."""
    everything = [path for path, _ in parameters_of(root)]
    slots: dict[str, _Slot] = {}
    for glob, path, memory in _memories(root, "", ""):
        assert memory.trained is not None
        slot = slots.setdefault(glob, _Slot(memory.trained))
        slot.paths += [f"{path}{p.path}" for p in memory.initial if p is not None]
    groups = []
    for glob, slot in slots.items():
        exact = {p for p in everything if matches(glob, p)} == set(slot.paths)
        groups.append(replace(slot.group, selectors=(glob,) if exact else tuple(slot.paths)))
    return tuple(groups)


@dataclass
class _Slot:
    """A memory of all copies of a block."""

    group: GroupRule
    paths: list[str] = field(default_factory=list)


def _memories(block: Block, glob: str, path: str) -> Iterator[tuple[str, str, Memory]]:
    """Memories that `train` moves: (glob of their parameters in all copies, path of their block, memory)."""
    for memory in block.memories:
        if memory.trained is not None:
            yield f"{glob}{memory.path}.*", path, memory
    for statement in block.body:
        if isinstance(statement, Call):
            yield from _memories(statement.block, f"{glob}{statement.path}.", f"{path}{statement.path}.")
        elif isinstance(statement, Repeat):
            for copy in range(statement.count):
                at = f"{path}{statement.path}[{copy}]."
                yield from _memories(statement.block, f"{glob}{statement.path}[*].", at)


def _settled(session: Session, block: Block, span: Span, done: dict[int, Block]) -> Block:
    """A block and what it calls; the same object where nothing stands on a clock of steps."""
    if id(block) in done:
        return done[id(block)]
    body: list[Statement] = []
    memories = {m.name: m for m in block.memories}
    for statement in block.body:
        if isinstance(statement, Call | Repeat):
            statement = replace(statement, block=_settled(session, statement.block, span, done))
        elif isinstance(statement, TaskWrite) and memories[statement.memory].clock.unit == "steps":
            before = memories[statement.memory]
            memories[statement.memory] = _trained(session, before, statement)
            if memories[statement.memory] is not before:
                body = without_schedules(body, {v.name for _, v in statement.rule.arguments})
                continue
        body.append(statement)
    for memory in memories.values():
        if memory.clock.unit == "steps":
            _written_by_train(session, block, memory, span)
    same = all(a is b or a == b for a, b in zip(block.body, body, strict=False)) and len(body) == len(
        block.body
    )
    new = block if same else replace(block, body=tuple(body), memories=tuple(memories.values()))
    done[id(block)] = new
    return new


def _trained(session: Session, memory: Memory, write: TaskWrite) -> Memory:
    """The memory with the group that moves it; NL0505 for what has no meaning there."""
    place = write.span or memory.span
    assert place is not None
    start = memory.span or place
    problems = (
        (memory.trained is not None, place, "is moved by two rules", "leave one of the two out"),
        (
            write.retain is not None or write.toward != "zero",
            place,
            "is a parameter: there is nothing to `retain` at every token",
            "let the rule decay it, such as `adamw(lr = 1e-3, decay = 0.1)`",
        ),
        (
            write.outer is None,
            place,
            "is moved between sequences, so the numbers of its rule cannot depend on a token",
            "give numbers or schedules of the step: `gd(lr = cosine(1e-3))`",
        ),
        (
            memory.init != "learned",
            start,
            "holds its own start, which `train` moves",
            "declare `init learned`, and start from no other memory",
        ),
        (
            memory.reset != "sequence",
            start,
            "is one for the whole batch and never reset",
            "leave `reset` out",
        ),
    )
    for found, where, message, help_ in problems:
        if found:
            session.report(
                "NL0505",
                f"`{memory.name}` on a clock of steps {message}",
                where,
                f"every {memory.clock.every} steps",
                help=help_,
            )
            return memory
    assert write.outer is not None
    return replace(memory, trained=replace(write.outer, every=memory.clock.every))


def _written_by_train(session: Session, block: Block, memory: Memory, span: Span) -> None:
    """NL0509: what is written while tokens arrive, or by nobody, has no clock of steps."""
    writes = [s for s in block.body if isinstance(s, Write | Update) and s.memory == memory.name]
    tasks = [s for s in block.body if isinstance(s, TaskWrite) and s.memory == memory.name]
    if tasks and not writes:
        return
    place = (writes[0].span if writes else memory.span) or span
    every = f"every {memory.clock.every} step{'s' * (memory.clock.every > 1)}"
    said = (
        "is written while tokens arrive, and its clock counts steps of training"
        if writes
        else "is never written"
    )
    session.report(
        "NL0509",
        f"`{memory.name}` {said}",
        place,
        every,
        help=f"`{every.split(' step')[0]} tokens` for a memory that learns in context; "
        f"`{memory.name} minimizes task by gd(lr = 1e-3)` for one that learns from step to step",
    )
