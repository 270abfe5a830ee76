"""`elaborate`: from a bundle of texts to a program; `check`: everything a file has to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from nldsl.diagnostics import Diagnostic, DiagnosticBag, did_you_mean
from nldsl.source import SourceFile, Span
from nldsl.spec.arguments import complete
from nldsl.spec.blocks import elaborate_block
from nldsl.spec.consequences import without_consequences
from nldsl.spec.definition_checks import check_definitions
from nldsl.spec.items import POISON, Item, Ref
from nldsl.spec.loader import KINDS, Bundle, Named, Unit, load, noting
from nldsl.spec.probes import PROBE_NUMBER, PROBE_WIDTH, probe_function
from nldsl.spec.program import Program, TrainPlan, Value
from nldsl.spec.program_checks import check_program
from nldsl.spec.rule_writes import write as _write  # noqa: F401  registers what rules may hold
from nldsl.spec.session import MAX_SIZE, Session
from nldsl.spec.step_slots import settle
from nldsl.spec.streams import stream_names, walk
from nldsl.spec.train import elaborate_train, set_options
from nldsl.spec.variants import Chosen, apply_edits, choose
from nldsl.syntax import is_yaml, tree


@dataclass(frozen=True)
class Target:
    """What is to be elaborated, and where its definition stands."""

    item: Named
    unit: Unit


def elaborate(
    bundle: Bundle,
    *,
    block: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    bag: DiagnosticBag,
) -> Program | None:
    """The program of a model, a variant or one block; `None` if anything is wrong, which `bag` then says.

    The target is `block` if given, else what the source named, else the last model or variant of
    the file, else its last block.  `arguments` replace static parameters; the inputs of a block take
    widths (`x = 64`; `dim = 64` for all of them).

    Example:
        >>> bag = DiagnosticBag()
        >>> elaborate(load("gated_deltanet", bag), block="gated_deltanet", arguments={"x": 64}, bag=bag).kind
        'block'
    """
    if bag.errors:
        return None
    session = Session(bag)
    program = None
    with noting() as asked, session.bounded(bundle.main.tree.span):
        check_definitions(session, bundle.main)
        target = find_target(session, bundle, block)
        if target is not None and not bag.errors:
            program = _program(session, target, dict(arguments or {}))
    if program is None or bag.errors:
        return None
    return replace(program, sources=bundle.sources(asked.values()))


def check(
    source: str | Path | SourceFile, *, block: str | None = None, arguments: Mapping[str, Any] | None = None
) -> list[Diagnostic]:
    """Everything there is to say about a source: every model, variant, `train` and block of its file.

    What no model uses is elaborated on a probe: blocks and maps on a width, rules on a small weight.

    Example:
        >>> check("block twice(x) { return 2 * x + y }")[0].code
        'NL0301'
    """
    return in_order(examine(source, block=block, arguments=arguments).findings)


class Examined(NamedTuple):
    """What `examine` finds."""

    findings: list[Diagnostic]
    programs: list[Program]
    file: SourceFile


def examine(
    source: str | Path | SourceFile, *, block: str | None = None, arguments: Mapping[str, Any] | None = None
) -> Examined:
    """The findings of `check`, every program that was elaborated on the way, and the text itself.

    Example:
        >>> found = examine("block twice(x) { return 2 * x }")
        >>> found.findings, found.programs[0].name
        ([], 'twice')
    """
    bag = DiagnosticBag()
    bundle = load(source, bag)
    if block is not None or arguments:
        one = elaborate(bundle, block=block, arguments=arguments, bag=bag)
        programs = [one] if one is not None else []
    else:
        programs = _check_unit(bundle.main, bag)
    return Examined(without_consequences(bag.items), programs, bundle.main.file)


def in_order(findings: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Findings in the order of the text."""
    return sorted(findings, key=_place)


def _place(finding: Diagnostic) -> tuple[str, int]:
    return (finding.span.file.name, finding.span.start) if finding.span else ("", 0)


def _check_unit(unit: Unit, bag: DiagnosticBag) -> list[Program]:
    """Models and variants first, then the blocks they did not reach, then the rest."""
    session = Session(bag)
    programs: list[Program | None] = []
    with session.bounded(unit.tree.span):
        if not unit.tree.items and not bag.errors:
            bag.add(nothing_defined(unit, unit.tree.span))
        check_definitions(session, unit)
        for item in unit.tree.items:
            if is_model(item):
                programs.append(check_item(session, item, unit))
        for item in callers_first(unit.tree.items):
            reached = {k[1] for k in session.memo if k[0] in ("block", "map")}
            if id(item) not in reached:
                programs.append(check_item(session, item, unit))
    return [p for p in programs if p is not None]


def callers_first(items: Iterable[tree.Item]) -> list[tree.Definition]:
    """Definitions but models; those that others name come last: what calls them knows their arguments."""
    found = [i for i in items if isinstance(i, tree.Definition) and not is_model(i)]
    named = {
        node.id
        for item in found
        for node in walk((item.body, tuple(p.default for p in item.params if p.default is not None)))
        if isinstance(node, tree.Name) and node.id != item.name.id
    }
    return sorted(found, key=lambda item: item.name.id in named)


def is_model(item: tree.Item) -> TypeGuard[Named]:
    """Whether an item is a whole program of its own: a model or a variant of one."""
    return isinstance(item, tree.Variant) or (isinstance(item, tree.Definition) and item.kind == "model")


def check_item(session: Session, item: Named, unit: Unit) -> Program | None:
    """Elaborate one item for what there is to say about it: the step that `check` repeats.

    A model or a variant is elaborated as it stands, anything else on a probe: the inputs of a block
    get a width that the usual numbers of heads divide.
    """
    if is_model(item):
        return _program(session, Target(item, unit), {})
    assert isinstance(item, tree.Definition)
    if item.kind == "block":
        streams = stream_names(item)
        free = [p.name.id for p in item.params if p.default is None and p.name.id not in streams]
        widths = dict.fromkeys(streams, PROBE_WIDTH) | dict.fromkeys(free, PROBE_NUMBER)
        return _block_program(session, item, unit, widths)
    probe_function(session, item, unit)
    return None


def find_target(session: Session, bundle: Bundle, block: str | None) -> Target | None:
    """What to elaborate.

    Errors: NL0320 if there is nothing of that name, or nothing at all.
    """
    unit = bundle.main
    wanted = (
        [("block", block), ("model", block)]
        if block is not None
        else [bundle.wanted]
        if bundle.wanted
        else []
    )
    for kind, name in [w for w in wanted if w is not None and w[1] is not None]:
        found = unit.find(kind, str(name))
        if found is not None and kind in ("model", "block"):
            return Target(*found)
    if not wanted:
        for kinds in (("model",), ("block",)):
            items = [i for (k, _), i in unit.own.items() if k in kinds]
            if items:
                return Target(max(items, key=lambda i: i.span.start), unit)
    name = block or (bundle.wanted[1] if bundle.wanted else "")
    part = next((kind for kind in _PARTS if name and unit.find(kind, name) is not None), "")
    if part:
        mine = unit.own.get((part, name))
        session.report(
            "NL0320",
            f"`{name}` is {'an' if part == 'objective' else 'a'} {part}, expected a block or a model",
            mine.name.span if isinstance(mine, tree.Definition) else unit.tree.span,
            help=_PARTS[part].format(name=name),
        )
        return None
    known = [*unit.names("block"), *unit.names("model")]
    session.report(
        "NL0320",
        f"there is no block or model `{name}` to elaborate"
        if name
        else "the file defines no model and no block",
        unit.tree.span,
        help=did_you_mean(name, known) if name else _what_to_define(unit),
    )
    return None


_PARTS = {
    "rule": "a rule is part of a program: `S[k] <- v by {name}(...)` in a block, `matrices by {name}(...)` "
    "in `train`; `nldsl verify` tests rules alone (`--rules` those of a program)",
    "map": "a map is part of a memory: use it in a block, `memory M = {name}()`",
    "objective": "an objective is part of a write: use it in a block, `S[k] <- v minimize {name} by ...`",
}
"""What is no program, and how one uses it."""


def nothing_defined(unit: Unit, span: Span) -> Diagnostic:
    """What is said of a file with nothing in it, or with comments alone."""
    return Diagnostic("NL0320", "the file defines nothing", span, help=_what_to_define(unit))


def _what_to_define(unit: Unit) -> str:
    """What to do with a file that has neither model nor block."""
    if any(kind == "rule" for kind, _ in unit.own):
        return "rules are for `nldsl verify`, `nldsl.optimizer` and `by`; define what uses one"
    if is_yaml(unit.tree.span.file.name):
        return "define one: `block twice: {takes: [x], body: [return 2 * x]}`"
    return "define one: `block twice(x) { return 2 * x }`"


def _program(session: Session, target: Target, arguments: dict[str, Any]) -> Program | None:
    """A model, a variant, or a block with the widths that `arguments` give."""
    if isinstance(target.item, tree.Definition) and target.item.kind == "block":
        return _block_program(session, target.item, target.unit, arguments)
    chosen = choose(session, target.item, target.unit)
    if chosen is None:
        return None
    given = _given(session, chosen.model, chosen.unit, arguments, chosen.arguments)
    if given is None:
        return None
    span = target.item.name.span
    for parameter in chosen.model.params:
        if parameter.default is None and parameter.name.id not in given:
            given[parameter.name.id] = Value(parameter.name.id, (), "token"), parameter.span
    bound = complete(session, chosen.model, chosen.unit, given, span)
    plan = train_plan(session, chosen)
    if bound is None:
        return None
    root = elaborate_block(session, chosen.model, chosen.unit, bound, span)
    if root is None:
        return None
    program = Program(target.item.name.id, "model", root, plan)
    program = settle(session, apply_edits(session, program, chosen.edits), span)
    check_program(session, program, span)
    return program


def train_plan(session: Session, chosen: Chosen) -> TrainPlan | None:
    """The `train` section of a model with what its variants add; `None` if there is none."""
    streams = [p.name.id for p in chosen.model.params if p.default is None]
    task = "label" if "label" in streams else "next_token"
    if chosen.train is not None:
        plan = elaborate_train(session, *chosen.train, task)
    elif chosen.groups or chosen.extra:
        plan = TrainPlan(task, "trunc", (), span=chosen.model.span)
    else:
        return None
    plan = set_options(session, plan, chosen.extra, chosen.unit)
    return replace(plan, groups=(*chosen.groups, *plan.groups))


def _given(
    session: Session,
    definition: tree.Definition,
    unit: Unit,
    arguments: dict[str, Any],
    others: dict[str, tuple[Item, Span]],
) -> dict[str, tuple[Item, Span]] | None:
    """The arguments of a variant and, stronger, those given from outside.

    Errors: NL0306 for a name that is no parameter.
    """
    params = {p.name.id: p for p in definition.params}
    given = dict(others)
    for name, value in arguments.items():
        given[name] = _from_outside(params.get(name), value, unit), definition.name.span
    good = True
    for name, (item, span) in given.items():
        if name not in params:
            good = False
            session.report(
                "NL0306",
                f"{definition.kind} `{definition.name.id}` has no argument `{name}`",
                span,
                "unknown argument",
                help=did_you_mean(name, params)
                or f"it takes {', '.join(f'`{n}`' for n in params) or 'no arguments'}",
            )
        elif item is POISON:
            good = False
    return given if good else None


def _from_outside(parameter: tree.Param | None, value: Any, unit: Unit) -> Item:
    """An argument from Python or the command line; the name of a definition becomes one where one stood."""
    if isinstance(value, list | tuple):
        return tuple(_from_outside(None, v, unit) for v in value)
    default = parameter.default if parameter is not None else None
    if isinstance(value, str) and isinstance(default, tree.Name) and any(unit.find(k, value) for k in KINDS):
        return Ref(value, unit)
    if isinstance(value, str | bool | int | float):
        return value
    return str(value)


def _block_program(
    session: Session, definition: tree.Definition, unit: Unit, arguments: dict[str, Any]
) -> Program | None:
    """One block: its streams get the widths that were asked for.

    Errors: NL0319 if a stream has no width.
    """
    params = [p.name.id for p in definition.params]
    streams = stream_names(definition)
    shared = arguments.pop("dim", None) if "dim" not in params else None
    given = _given(session, definition, unit, {n: v for n, v in arguments.items() if n not in streams}, {})
    if given is None:
        return None
    for name in streams:
        width = _width(session, definition, name, arguments.get(name, shared))
        if width is None:
            return None
        given[name] = width, definition.name.span
    bound = complete(session, definition, unit, given, definition.name.span)
    root = (
        elaborate_block(session, definition, unit, bound, definition.name.span) if bound is not None else None
    )
    if root is None:
        return None
    program = settle(session, Program(definition.name.id, "block", root, None), definition.name.span)
    check_program(session, program, definition.name.span)
    return program


def _width(session: Session, definition: tree.Definition, name: str, width: Any) -> Value | None:
    """The stream `name` at a width: a number of channels, or `[heads, channels]`."""
    sizes = tuple(width) if isinstance(width, list | tuple) else (width,)
    good = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MAX_SIZE for n in sizes)
    if width is not None and good and len(sizes) in (1, 2):
        return Value(name, sizes, "vector" if len(sizes) == 1 else "headed")
    session.report(
        "NL0319",
        f"block `{definition.name.id}` needs the width of `{name}`",
        definition.name.span,
        "no width given" if width is None else f"found `{width}`",
        help=f"give `{name} = 64`, or `dim = 64` for all inputs; on the command line `--set dim=64`",
    )
    return None
