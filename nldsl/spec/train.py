"""The `train` section: task, settings, and who trains what by which rule."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nldsl.catalog.binding import bind
from nldsl.catalog.primitive import ContractError, Primitive
from nldsl.catalog.schedules import SCHEDULES
from nldsl.catalog.selectors import ROLES
from nldsl.catalog.values import Options
from nldsl.diagnostics import did_you_mean
from nldsl.library import PRIMITIVES
from nldsl.spec.expressions import evaluate, lookup, static_of
from nldsl.spec.frame import Frame, Namer
from nldsl.spec.functions import BoundDefinition, bind_definition
from nldsl.spec.items import POISON, Item, PerValue, RuleItem, describe, freeze, is_number, is_static
from nldsl.spec.loader import Unit
from nldsl.spec.outer_rules import OuterRule
from nldsl.spec.program import GroupRule, TrainPlan, Value
from nldsl.spec.rule_bounds import bounds_by_path
from nldsl.spec.rules import elaborate_rule
from nldsl.spec.session import Session
from nldsl.spec.static import whole_number
from nldsl.spec.streams import walk
from nldsl.syntax import tree

TASKS = ("next_token", "label")
"""What `task` may name."""
CARRIES = ("trunc", "exact")
SETTINGS = ("task", "truncate", "clip", "learn_generated")
Scheduled = tuple[str, str, Options]
"""An argument, the schedule it follows, and the options of that."""


@dataclass
class Section:
    """A `train` section while it is read."""

    frame: Frame
    plan: TrainPlan
    groups: list[GroupRule] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def elaborate_train(session: Session, node: tree.Train, unit: Unit, task: str) -> TrainPlan:
    """The plan of a `train` section; what is wrong is reported and left out.

    `task` is what the model is trained on if the section does not say.
    """
    frame = Frame(session, unit, "rule", f"train {node.target.id}", {}, Namer())
    section = Section(frame, TrainPlan(task, "trunc", (), span=node.span))
    _run(section, node.body)
    return replace(section.plan, groups=tuple(section.groups))


def _run(section: Section, body: tuple[tree.Statement, ...], level: str = "", every: int = 1) -> None:
    """Settings, levels and groups; `level` is the one they stand in, and `every` its clock."""
    for statement in body:
        if isinstance(statement, tree.Setting):
            _setting(section, statement)
        elif isinstance(statement, tree.Group):
            group = read_group(section.frame, statement, every)
            if group is not None:
                section.groups.append(replace(group, level=level) if level else group)
        elif isinstance(statement, tree.LevelDecl):
            _run(section, statement.body, statement.name.id, _steps(section.frame, statement.clock))
        else:
            section.frame.session.report(
                "NL0604", "expected a setting, a level or a group", statement.span, "has no place in `train`"
            )


def _steps(frame: Frame, clock: tree.Clock | None) -> int:
    """A clock of the outer levels: steps of the optimiser."""
    if clock is None:
        return 1
    if clock.unit != "steps" or clock.count is None:
        frame.session.report(
            "NL0501", "what `train` trains is on a clock of steps", clock.span, "expected `every N steps`"
        )
        return 1
    count = whole_number(
        frame.session, evaluate(frame, clock.count), "a clock", clock.count.span, code="NL0501"
    )
    return 1 if count is POISON else count


def _setting(section: Section, node: tree.Setting) -> None:
    """`task`, `truncate`, `clip`, `learn_generated`."""
    session, key = section.frame.session, node.key.id
    if key in section.seen:
        session.report("NL0309", f"`{key}` is given twice", node.span, "given again here")
    section.seen.add(key)
    handler = _SETTINGS.get(key)
    if handler is not None:
        handler(section, node)
        return
    session.report(
        "NL0604",
        f"unknown setting `{key}`",
        node.key.span,
        "not a setting of `train`",
        help=did_you_mean(key, SETTINGS) or f"known: {', '.join(f'`{s}`' for s in SETTINGS)}",
    )


def _truncate(section: Section, node: tree.Setting) -> None:
    """`truncate 256 tokens`."""
    session = section.frame.session
    count = whole_number(session, evaluate(section.frame, node.value), "`truncate`", node.value.span)
    if node.unit == "steps":
        session.report("NL0604", "`truncate` counts tokens", node.span, "expected `truncate N tokens`")
    if count is not POISON:
        section.plan = replace(section.plan, truncate=count)


def _clip(section: Section, node: tree.Setting) -> None:
    """`clip 1.0`."""
    limit = static_of(section.frame, node.value, "`clip`")
    if limit is POISON:
        return
    if is_number(limit) and limit > 0 and not node.unit:
        section.plan = replace(section.plan, clip=float(limit))
        return
    found = f"`clip` must be a number above 0, found {describe(limit)}"
    section.frame.session.report("NL0405", found, node.value.span, "here")


def _learn_generated(section: Section, node: tree.Setting) -> None:
    """`learn_generated = true`."""
    chosen = static_of(section.frame, node.value, "`learn_generated`")
    if isinstance(chosen, bool):
        section.plan = replace(section.plan, learn_generated=chosen)
    elif chosen is not POISON:
        found = f"`learn_generated` is `true` or `false`, found {describe(chosen)}"
        section.frame.session.report("NL0405", found, node.value.span, "here")


def _task(section: Section, node: tree.Setting) -> None:
    """`task next_token(carry = "exact")`."""
    session, value = section.frame.session, node.value
    name = value.function if isinstance(value, tree.Call) else value
    if not isinstance(name, tree.Name) or name.id not in TASKS:
        found = name.id if isinstance(name, tree.Name) else ""
        session.report(
            "NL0604",
            f"unknown task `{found}`" if found else "expected the name of a task",
            value.span,
            "unknown task",
            help=did_you_mean(found, TASKS) or f"known: {', '.join(TASKS)}",
        )
        return
    carry: Any = "trunc"
    for argument in value.args if isinstance(value, tree.Call) else ():
        carry = static_of(section.frame, argument.value, "an argument of a task")
        if argument.name not in (None, "carry"):
            session.report(
                "NL0306",
                f"task `{name.id}` has no argument `{argument.name}`",
                argument.span,
                "unknown argument",
                help=did_you_mean(argument.name or "", ["carry"]) or "it takes `carry`",
            )
            carry = "trunc"
        elif carry is not POISON and carry not in CARRIES:
            session.report(
                "NL0405",
                f'`carry` is "trunc" or "exact", found {describe(carry)}',
                argument.value.span,
                "unknown",
            )
    kind: Literal["trunc", "exact"] = "exact" if carry == "exact" else "trunc"
    section.plan = replace(section.plan, task=name.id, carry=kind)


_SETTINGS = {"task": _task, "truncate": _truncate, "clip": _clip, "learn_generated": _learn_generated}


def read_group(frame: Frame, node: tree.Group, every: int = 1) -> GroupRule | None:
    """`matrices, "*.conv.*" by muon(lr = 2e-2) every 10 steps`."""
    good = True
    for selector in node.selectors:
        if isinstance(selector, tree.Name) and selector.id not in ROLES:
            good = False
            frame.session.report(
                "NL0603",
                f"unknown role `{selector.id}`",
                selector.span,
                "no parameters have this role",
                help=did_you_mean(selector.id, ROLES)
                or f"roles are {', '.join(ROLES)} (`rest`: what is left over); paths are quoted: "
                f'`"*.{selector.id}.*"`',
            )
    selectors = tuple(s.id if isinstance(s, tree.Name) else s.value for s in node.selectors)
    every = every if node.clock is None else _steps(frame, node.clock)
    plain, schedules = read_schedules(frame, node.rule)
    if schedules is None:
        return None
    found = bind_definition(frame, plain, "rule", ("NL0305", "a rule such as `adamw(lr = 3e-4)`"), 0)
    if found is POISON:
        return None
    group = outer_group(frame, plain, found, schedules)
    if group is None or not good:
        return None
    spans = tuple(s.span for s in node.selectors)
    return replace(group, selectors=selectors, every=every, spans=spans)


def outer_group(
    frame: Frame, node: tree.Expr, found: BoundDefinition, schedules: list[Scheduled]
) -> GroupRule | None:
    """The rule of a group that claims nothing yet; `None` if it is none, or depends on values of a block."""
    definition, unit, bound = found
    if not all(_known(item) for item in bound.values()) or not _within_bounds(frame, node, found):
        return None
    given = _given(definition, node)
    moving: dict[str, Item] = {n: Value(n, (), "scalar") for n, _, _ in schedules}
    outer = OuterRule(definition, unit, tuple(bound.items()), node.span)
    # What is said of a rule, and its code, do not depend on the shape it is read at, if it takes that one.
    rule = elaborate_rule(frame.session, definition, unit, {**bound, **moving}, outer.probe, True, node.span)
    if rule is None:
        return None
    arguments = tuple(
        sorted((n, freeze(i)) for n, i in bound.items() if n in given and n not in moving and is_static(i))
    )
    return GroupRule((), definition.name.id, arguments, 1, tuple(schedules), bound=rule, outer=outer)


def _within_bounds(frame: Frame, node: tree.Expr, found: BoundDefinition) -> bool:
    """Whether every number of a rule, peaks of schedules too, is one it can work with."""
    definition, _, bound = found
    spans = {a.name: a.span for a in node.args} if isinstance(node, tree.Call) else {}
    good = True
    for path, allowed, value in bounds_by_path(definition, tuple(bound.items())):
        name = path.rpartition(".")[2]
        if wrong := allowed.refusal(name, value):
            good = False
            span = spans.get(path.partition(".")[0]) or node.span
            help = "a rule that climbs says so: `W = W + lr * g`" if name == "lr" and value < 0 else ""  # noqa: A001
            frame.session.report("NL0426", wrong, span, "outside of its range", help=help)
    return good


def _known(item: Item) -> bool:
    """Whether an argument of a rule is known before anything runs; also in the rules it may take."""
    if isinstance(item, RuleItem):
        return all(_known(inside) for _, inside in item.arguments)
    return not isinstance(item, Value | PerValue)


def _given(definition: tree.Definition, node: tree.Expr) -> set[str]:
    """Names of the arguments a call gives, by position or name."""
    args = node.args if isinstance(node, tree.Call) else ()
    names = [p.name.id for p in definition.params]
    return {a.name or names[i] for i, a in enumerate(args) if a.name or i < len(names)}


def read_schedules(frame: Frame, node: tree.Expr) -> tuple[tree.Expr, list[Scheduled] | None]:
    """The rule's call with each schedule replaced by its peak, and the schedules."""
    if not isinstance(node, tree.Call):
        return node, []
    args, found, good = [], [], True
    for argument in node.args:
        call = argument.value
        if not isinstance(call, tree.Call) or call.function.id not in SCHEDULES or _computed(frame, call):
            args.append(argument)
            continue
        options = _schedule_options(frame, call)
        if argument.name is None or options is None:
            good = False
            args.append(replace(argument, value=tree.Number(span=call.span, value=1)))
            if options is not None:
                frame.session.report(
                    "NL0605",
                    "a schedule is given by name",
                    argument.span,
                    "which argument?",
                    help="`lr = cosine(2e-2)`",
                )
            continue
        found.append((argument.name, call.function.id, tuple(sorted(options.items()))))
        peak = tree.Number(span=call.span, value=options["value"])
        args.append(replace(argument, value=peak))
    return replace(node, args=tuple(args)), found if good else None


def _computed(frame: Frame, call: tree.Call) -> bool:
    """Whether it is the primitive of that name: `linear(x, heads)`, of a value of the block."""
    parts = [n for a in call.args[:1] for n in walk(a.value)]
    values = [n for n in parts if isinstance(n, tree.Name) and isinstance(lookup(frame, n.id), Value)]
    return call.function.id in PRIMITIVES and bool(values)


def _schedule_options(frame: Frame, call: tree.Call) -> dict[str, Any] | None:
    """The options of a schedule, bound and checked."""
    schedule = SCHEDULES[call.function.id]
    items = [(a.name, static_of(frame, a.value, "an argument of a schedule")) for a in call.args]
    if any(i is POISON for _, i in items):
        return None
    contract = Primitive(schedule.name, schedule.doc, "", (), _no_shape, "", tuple(schedule.options))
    try:
        return dict(
            bind(
                contract,
                [freeze(i) for n, i in items if n is None],
                {n: freeze(i) for n, i in items if n is not None},
            )
        )
    except ContractError as refusal:
        first, _, help_ = str(refusal).partition("; ")
        frame.session.report("NL0605", first, call.span, "refused", help=help_)
        return None


def _no_shape(operands: tuple[Any, ...], options: Any) -> Any:
    raise ContractError("a schedule has no shape")


def set_options(
    session: Session, plan: TrainPlan, settings: tuple[tree.Setting, ...], unit: Unit
) -> TrainPlan:
    """The plan with the settings of a variant in place of its own."""
    section = Section(Frame(session, unit, "rule", "variant", {}, Namer()), plan)
    for setting in settings:
        section.seen.clear()
        _setting(section, setting)
    return section.plan
