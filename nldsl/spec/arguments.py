"""Bind the arguments of a call to the parameters of a definition."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.diagnostics import Label, did_you_mean
from nldsl.library import PRIMITIVES
from nldsl.source import Span
from nldsl.spec.expressions import evaluate, lookup
from nldsl.spec.frame import Frame, Namer
from nldsl.spec.items import POISON, Item, PerValue, RuleItem
from nldsl.spec.loader import Unit
from nldsl.spec.program import Value
from nldsl.spec.session import Session
from nldsl.syntax import tree


def bind_arguments(
    frame: Frame, definition: tree.Definition, node: tree.Call, skip: int = 0
) -> dict[str, tuple[Item, Span]] | None:
    """What the call gives for each parameter, evaluated in the frame of the caller.

    The first `skip` parameters are given otherwise (a map's input, an objective's prediction).
    Errors: NL0306 unknown argument, NL0307 too many, NL0309 given twice.
    """
    params = definition.params[skip:]
    names = [p.name.id for p in params]
    given: dict[str, tuple[Item, Span]] = {}
    good = True
    position = 0
    for argument in node.args:
        item = (
            evaluate(frame, argument.value)
            if definition.kind != "rule"
            else rule_argument(frame, argument.value)
        )
        if argument.name is None:
            if position >= len(params):
                good = _too_many(frame.session, definition, node, argument, len(params))
                continue
            name = names[position]
            position += 1
        else:
            name = argument.name
        if name not in names:
            good = _unknown(frame.session, definition, name, names, argument.span)
        elif name in given:
            good = _twice(frame.session, definition, name, argument.span, given[name][1])
        else:
            given[name] = (item, argument.value.span)
    return given if good else None


def complete(
    session: Session,
    definition: tree.Definition,
    unit: Unit,
    given: dict[str, tuple[Item, Span]],
    span: Span,
    skip: int = 0,
) -> dict[str, Item] | None:
    """Every parameter with its item: given, or its default, which may use the parameters before it.

    Errors: NL0308 if one without default is missing.
    """
    bound: dict[str, Item] = {}
    missing = []
    frame = Frame(session, unit, "block", definition.name.id, bound, Namer())
    for parameter in definition.params[skip:]:
        name = parameter.name.id
        if name in given:
            bound[name] = given[name][0]
        elif parameter.default is not None:
            default = rule_argument if definition.kind == "rule" else evaluate
            bound[name] = default(frame, parameter.default)
        else:
            missing.append(parameter)
    if missing:
        listed = ", ".join(f"`{p.name.id}`" for p in missing)
        session.report(
            "NL0308",
            f"{definition.kind} `{definition.name.id}` needs {listed}",
            span,
            f"{listed} {'is' if len(missing) == 1 else 'are'} missing",
            secondary=tuple(Label(p.span, "has no default") for p in missing),
            help=f"`{signature(definition)}`",
        )
        return None
    return None if any(item is POISON for item in bound.values()) else bound


def rule_argument(frame: Frame, node: tree.Expr) -> Item:
    """An argument of a rule: as anywhere, or a rule with its arguments, or `values(a)`."""
    name = node.function.id if isinstance(node, tree.Call) else ""
    if not isinstance(node, tree.Call) or lookup(frame, name) is not None:
        return evaluate(frame, node)
    if name == "values" and len(node.args) == 1 and node.args[0].name is None:
        value = evaluate(frame, node.args[0].value)
        return PerValue(value) if isinstance(value, Value) else value
    found = frame.unit.find("rule", name) if name not in PRIMITIVES else None
    if found is None or not isinstance(found[0], tree.Definition):
        return evaluate(frame, node)
    definition, unit = found[0], found[1]
    given = bind_arguments(frame, definition, node)
    bound = None if given is None else complete(frame.session, definition, unit, given, node.span)
    return POISON if bound is None else RuleItem(definition, unit, tuple(bound.items()))


def signature(definition: tree.Definition) -> str:
    """The header of a definition, as written."""
    params = ", ".join(p.span.text.strip() or p.name.id for p in definition.params)
    return f"{definition.kind} {definition.name.id}({params})"


def _unknown(
    session: Session, definition: tree.Definition, name: str, names: Sequence[str], span: Span
) -> bool:
    known = f"it takes {', '.join(f'`{n}`' for n in names)}" if names else "it takes no arguments"
    session.report(
        "NL0306",
        f"{definition.kind} `{definition.name.id}` has no argument `{name}`",
        span,
        "unknown argument",
        help=did_you_mean(name, names) or known,
    )
    return False


def _too_many(
    session: Session, definition: tree.Definition, node: tree.Call, argument: tree.Arg, most: int
) -> bool:
    found = sum(1 for a in node.args if a.name is None)
    session.report(
        "NL0307",
        f"{definition.kind} `{definition.name.id}` takes at most {most}, found {found} arguments by position",
        argument.span,
        "one too many",
        help=f"`{signature(definition)}`",
    )
    return False


def _twice(session: Session, definition: tree.Definition, name: str, span: Span, first: Span) -> bool:
    session.report(
        "NL0309",
        f"`{name}` of `{definition.name.id}` is given twice",
        span,
        "given again here",
        secondary=(Label(first, "first given here"),),
    )
    return False
