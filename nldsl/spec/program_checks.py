"""Checks of a whole program: clocks that must divide, parameters that no loss reaches, who trains what."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.catalog.selectors import ROLES, first_match
from nldsl.diagnostics import Label
from nldsl.source import Span
from nldsl.spec.program import Block, Call, Memory, Parameter, Program, Repeat, TaskWrite, TrainPlan
from nldsl.spec.reach import idle_memories, unreached
from nldsl.spec.session import Session
from nldsl.spec.walk import parameters_of

_FAR = frozenset({"detach"})
"""What ends a gradient because somebody says so; comparisons and signs end it as well."""


def check_program(session: Session, program: Program, span: Span) -> None:
    """Every check of this module."""
    _task_clocks(session, program.root, span)
    _paths(session, program, span)
    _losses(session, program, span)
    if program.train is not None:
        _claims(session, program, program.train)


def _losses(session: Session, program: Program, span: Span) -> None:
    """NL0601: parameters without a gradient, by place, or together where they feed a memory in vain."""
    places: dict[Span, list[str]] = {}
    for path, parameter in unreached(program):
        places.setdefault(parameter.span or span, []).append(path)
    idle = [m for _, memories in idle_memories(program) for m in memories]
    if len(places) > 1 and idle and idle[0].span is not None:
        paths = [path for found in places.values() for path in found]
        session.report(
            "NL0601",
            f"nothing that is returned depends on what {_listed([m.name for m in idle])} "
            f"{'answers' if len(idle) == 1 else 'answer'}, so {len(paths)} parameters reach no loss",
            idle[0].span,
            "feeds nothing",
            notes=(f"they are {_listed(paths)}",),
            help="let what is returned depend on the answer, or remove the memory and what feeds it",
        )
        return
    starts = {id(p) for memory in _memories(program.root) for p in memory.initial}
    fixed = {p.span or span for _, p in unreached(program) if id(p) in starts}
    far = {id(p) for _, p in unreached(program, _FAR)}
    jumps = {p.span or span for _, p in unreached(program) if id(p) not in far}
    for place, paths in places.items():
        many = len(paths) > 1
        if place in jumps:
            session.report(
                "NL0601",
                f"parameter{'s' * many} {_listed(paths)} reach{'es' * (not many)} the loss through "
                "comparisons alone, which have no slope",
                place,
                "never learns",
                help="`soft + detach(hard - soft)` has the value of `hard` and the slope of `soft`, "
                "such as `soft = sigmoid(...)`",
            )
            continue
        stays = "; a start that is to stay as it is drawn is `init fixed`" if place in fixed else ""
        session.report(
            "NL0601",
            f"parameter{'s' * many} {_listed(paths)} reach{'es' * (not many)} no loss",
            place,
            "never learns",
            help=f"let the output depend on {'them' if many else 'it'}, or remove what owns "
            f"{'them' if many else 'it'}{stays}",
        )


def _listed(names: list[str], most: int = 4) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _task_memories(block: Block) -> Iterator[Memory]:
    """Memories that learn on the task, at any depth."""
    written = {s.memory for s in block.body if isinstance(s, TaskWrite)}
    yield from (m for m in block.memories if m.name in written)
    for statement in block.body:
        if isinstance(statement, Call | Repeat):
            yield from _task_memories(statement.block)


def _memories(block: Block) -> Iterator[Memory]:
    """All memories, at any depth."""
    yield from block.memories
    for statement in block.body:
        if isinstance(statement, Call | Repeat):
            yield from _memories(statement.block)


def _task_clocks(session: Session, root: Block, span: Span) -> None:
    """NL0503: all task clocks are multiples of the smallest."""
    memories = list(_task_memories(root))
    clocks = sorted({m.clock.every: m for m in memories if m.clock.unit == "tokens"}.items())
    for every, memory in clocks[1:]:
        least, first = clocks[0]
        if every % least:
            labels = (
                (Label(first.span, f"every {least} tokens"),)
                if first.span and first.span != memory.span
                else ()
            )
            session.report(
                "NL0503",
                f"task clocks must be multiples of the smallest, {least}; found {every}",
                memory.span or span,
                f"every {every} tokens",
                secondary=labels,
                help=f"segments have {least} tokens; use a multiple such as {every // least * least}",
            )


def _paths(session: Session, program: Program, span: Span) -> None:
    """NL0329: every parameter has a path of its own, and none is a folder of another."""
    seen: dict[str, Parameter] = {}
    folders: set[str] = set()
    for path, parameter in parameters_of(program.root):
        if path in seen:
            session.report(
                "NL0329",
                f"two parameters would be called `{path}`",
                parameter.span or span,
                "rename a variable",
            )
        seen[path] = parameter
        parts = path.split(".")
        folders |= {".".join(parts[:i]) for i in range(1, len(parts))}
    for path in sorted(seen.keys() & folders):
        session.report(
            "NL0329",
            f"`{path}` is a parameter and the home of others",
            seen[path].span or span,
            "rename a variable or a weight",
        )


def _faulty(session: Session, plan: TrainPlan) -> bool:
    """Whether a group of the section could not be read: it may be the one that is missing."""
    span = plan.span
    return span is not None and any(
        d.span is not None and d.span.file is span.file and span.start <= d.span.start < span.end
        for d in session.bag.errors
    )


def _trainable(
    session: Session, plan: TrainPlan, ranks: dict[tuple[int, int], tuple[str, Parameter]]
) -> None:
    """NL0607: a rule that works on matrices is given something else; one parameter per number of axes."""
    for (index, _), (path, parameter) in ranks.items():
        outer = plan.groups[index].outer
        reason = outer.refusal(parameter.shape) if outer is not None else ""
        if outer is not None and reason:
            session.report(
                "NL0607",
                f"`{outer.name}` cannot train `{path}` {list(parameter.shape)}",
                outer.span,
                "needs other weights",
                notes=(f"for such a weight: {reason}",),
                help="give it to a group of its own, such as `rest by adamw(lr = 3e-4)`",
            )


def _claims(session: Session, program: Program, plan: TrainPlan) -> None:
    """NL0602 a parameter nobody trains; NL0603 a glob that matches nothing."""
    groups = [g.selectors for g in plan.groups]
    used: set[tuple[int, str]] = set()
    orphans = []
    ranks: dict[tuple[int, int], tuple[str, Parameter]] = {}
    for path, parameter in parameters_of(program.root):
        if parameter.schedule is not None:
            continue
        hit = first_match(groups, path, parameter.role)
        if hit is None:
            orphans.append(path)
        else:
            used.add(hit)
            ranks.setdefault((hit[0], len(parameter.shape)), (path, parameter))
    _trainable(session, plan, ranks)
    if orphans and groups and not _faulty(session, plan):
        shown = ", ".join(f"`{p}`" for p in orphans[:3]) + (
            f" and {len(orphans) - 3} more" if len(orphans) > 3 else ""
        )
        session.report(
            "NL0602",
            f"nobody trains {shown}",
            plan.span,
            "no group claims them",
            help="add a group, such as `rest by adamw(lr = 3e-4)`",
        )
    for index, selectors in enumerate(groups):
        for selector, at in zip(selectors, plan.groups[index].spans, strict=False):
            if (index, selector) not in used and selector not in ROLES:
                session.report(
                    "NL0603",
                    f'"{selector}" matches no parameter that is left',
                    at,
                    "matches nothing",
                    help="first match wins: move the group up, or correct the path",
                )
