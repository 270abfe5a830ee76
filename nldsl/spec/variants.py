"""Variants: a model with other arguments, other clocks and other groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from nldsl.diagnostics import did_you_mean
from nldsl.source import Span
from nldsl.spec.expressions import evaluate
from nldsl.spec.frame import Frame, Namer
from nldsl.spec.items import Item
from nldsl.spec.loader import Unit
from nldsl.spec.memories import read_clock
from nldsl.spec.program import Block, Call, Clock, GroupRule, Memory, Program, Repeat, Write
from nldsl.spec.session import Session
from nldsl.spec.train import read_group
from nldsl.syntax import tree

MAX_CHAIN = 16
"""Variants of variants."""


@dataclass(frozen=True)
class Edit:
    """One clock that a variant sets."""

    path: str
    clock: Clock
    span: Span


@dataclass(frozen=True)
class Chosen:
    """A model and everything its variants say about it, the outermost last."""

    model: tree.Definition
    unit: Unit
    arguments: dict[str, tuple[Item, Span]]
    edits: tuple[Edit, ...] = ()
    groups: tuple[GroupRule, ...] = ()
    train: tuple[tree.Train, Unit] | None = None
    extra: tuple[tree.Setting, ...] = ()


def choose(
    session: Session, item: tree.Definition | tree.Variant, unit: Unit, trail: tuple[str, ...] = ()
) -> Chosen | None:
    """Follow a chain of variants down to its model.

    Errors: NL0318 if the base is unknown, NL0315 if the chain is a circle.
    """
    if isinstance(item, tree.Definition):
        return Chosen(item, unit, {}, train=_train_of(item.name.id, unit))
    if item.name.id in trail or len(trail) > MAX_CHAIN:
        path = " -> ".join(f"`{n}`" for n in (*trail, item.name.id))
        session.report("NL0315", f"variants go in a circle: {path}", item.base.span, "this closes the circle")
        return None
    found = unit.find("model", item.base.id)
    if found is None:
        session.report(
            "NL0318",
            f"unknown model `{item.base.id}`",
            item.base.span,
            "not defined here",
            help=did_you_mean(item.base.id, unit.names("model")) or "see `nldsl list`",
        )
        return None
    base = choose(session, found[0], found[1], (*trail, item.name.id))
    if base is None:
        return None
    frame = Frame(session, unit, "block", item.name.id, {}, Namer())
    arguments = dict(base.arguments)
    for argument in item.args:
        if argument.name is None:
            session.report("NL0307", "arguments of a variant are given by name", argument.span, "which one?")
            continue
        arguments[argument.name] = evaluate(frame, argument.value), argument.span
    edits, groups, extra = _body(session, item, unit)
    return replace(
        base,
        arguments=arguments,
        edits=(*base.edits, *edits),
        groups=(*groups, *base.groups),
        train=_train_of(item.name.id, unit) or base.train,
        extra=(*base.extra, *extra),
    )


def _train_of(name: str, unit: Unit) -> tuple[tree.Train, Unit] | None:
    """The `train` section of a model: beside it, or in a file that is seen from there."""
    return next(((u.trains[name], u) for u in unit.visible() if name in u.trains), None)


def _body(
    session: Session, item: tree.Variant, unit: Unit
) -> tuple[list[Edit], list[GroupRule], list[tree.Setting]]:
    """Edits of levels, groups in front of those of the base, and settings in their place."""
    frame = Frame(session, unit, "rule", item.name.id, {}, Namer())
    edits, groups, settings = [], [], []
    for statement in item.body:
        if isinstance(statement, tree.LevelEdit):
            clock = read_clock(frame, statement.clock)
            if clock is not None:
                edits.append(Edit(statement.path.value, clock, statement.path.span))
        elif isinstance(statement, tree.Group):
            group = read_group(frame, statement)
            if group is not None:
                groups.append(group)
        elif isinstance(statement, tree.Setting):
            settings.append(statement)
        else:
            session.report(
                "NL0604",
                "expected an edit of a level, a group or a setting",
                statement.span,
                "has no place in `variant`",
            )
    return edits, groups, settings


def apply_edits(session: Session, program: Program, edits: Iterable[Edit]) -> Program:
    """Set the clocks a variant names.

    Errors: NL0504 if a path names no level.
    """
    for edit in edits:
        known: list[str] = []
        root, hits = _edit_block(program.root, "", edit, known)
        if not hits:
            session.report(
                "NL0504",
                f'no level is called "{edit.path}"',
                edit.span,
                "matches nothing",
                help=did_you_mean(edit.path, known) or f"levels are {', '.join(f'`{k}`' for k in known[:6])}",
            )
        program = replace(program, root=root)
    return program


def _edit_block(block: Block, prefix: str, edit: Edit, known: list[str]) -> tuple[Block, int]:
    """A block with the matching clocks replaced, and how many memories that were."""
    hits = 0
    memories: list[Memory] = []
    before: dict[str, int] = {}
    for memory in block.memories:
        path = f"{prefix}{memory.level}"
        if memory.level and path not in known:
            known.append(path)
        if memory.level and _means(edit.path, path):
            hits += 1
            before[memory.name] = max(memory.clock.every, 1)
            memory = replace(memory, clock=edit.clock)
        memories.append(memory)
    body = []
    for statement in block.body:
        if isinstance(statement, Call | Repeat):
            inner, found = _edit_block(statement.block, f"{prefix}{statement.path}.", edit, known)
            hits += found
            statement = replace(statement, block=inner)
        elif isinstance(statement, Write) and statement.base_every == before.get(statement.memory):
            statement = replace(statement, base_every=max(edit.clock.every, 1))
        body.append(statement)
    return (replace(block, memories=tuple(memories), body=tuple(body)) if hits else block), hits


def _means(wanted: str, path: str) -> bool:
    """Whether a selector names a level: the end of its path, with or without indices."""
    want, have = wanted.split("."), path.split(".")
    if len(want) > len(have):
        return False
    tail = have[len(have) - len(want) :]
    return all(w in (h, h.partition("[")[0]) for w, h in zip(want, tail, strict=True))
