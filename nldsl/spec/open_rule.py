"""A rule by name, call, text or file, outside of any `train` section: what `nldsl.optimizer` starts from."""

from __future__ import annotations

import math
import numbers
from pathlib import Path

from nldsl.catalog.values import Static
from nldsl.diagnostics import Diagnostic, DiagnosticBag, SpecError
from nldsl.source import SourceFile
from nldsl.spec.definition_checks import check_definitions
from nldsl.spec.frame import Frame, Namer
from nldsl.spec.loader import Unit, load, standard_library
from nldsl.spec.program import GroupRule
from nldsl.spec.session import Session
from nldsl.spec.train import read_group
from nldsl.syntax import parse, tree

TEXTS = (".nl", ".yaml", ".yml")


def open_rule(rule: str | Path, *, home: Unit | None = None, **arguments: Static) -> GroupRule:
    """The group `rest by RULE(ARGUMENTS)`, with the rule bound and checked.

    rule: a name (`adamw`), a call (`lookahead(adamw(lr = 1e-3))`), a text that defines rules, or a file of
    them; of a text or a file the last rule is meant, or the one called like the file.  home: a parsed text
    in which `rule`, a name or a call, is looked up first.

    Errors: `SpecError` with everything that was found.

    Example:
        >>> open_rule("adamw", lr=1e-3).outer.open[0]
        OpenArgument(name='lr', path='lr', value=0.001)
    """
    bag = DiagnosticBag()
    arguments = {name: _plain(name, value) for name, value in arguments.items()}
    call, written = str(rule), None
    if home is None:
        home, call = _home(rule, bag)
        written = home
    bag.raise_if_errors()
    text = f"train optimizer {{\n  rest by {_call(call, arguments)}\n}}\n"
    unit = Unit(SourceFile("<rule>", text), parse(SourceFile("<rule>", text), bag), standard_library())
    bag.raise_if_errors()
    if home is not None:
        unit.uses.append(home)
    session, group = Session(bag), None
    with session.bounded(unit.tree.span):
        if written is not None:
            check_definitions(session, written)
        node = _group(unit)
        if node is not None:
            group = read_group(Frame(session, unit, "rule", "rule", {}, Namer()), node)
    bag.raise_if_errors()
    if group is None:
        raise SpecError(
            bag.items or [Diagnostic("NL0305", f"`{rule}` is no rule", help="`adamw(lr = 1e-3)`")]
        )
    return group


def _plain(name: str, value: object) -> Static:
    """An argument as Python has it: numbers of other libraries as plain ones; raises NL0968 for no value."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(_plain(name, item) for item in value)
    if isinstance(value, numbers.Integral):
        return int(value)
    plain = float(value) if isinstance(value, numbers.Real) else value
    if isinstance(plain, float) and math.isfinite(plain):
        return plain
    known = "numbers, strings, `True`, `False` and lists are values"
    advice = "give a finite number" if isinstance(plain, float) else known
    raise SpecError([Diagnostic("NL0968", f"`{name}` is no value of the language: {plain!r}", help=advice)])


def _home(rule: str | Path, bag: DiagnosticBag) -> tuple[Unit | None, str]:
    """The text the rule stands in, if it is none of the library, and the call that names it."""
    text = str(rule)
    if not (isinstance(rule, Path) or text.endswith(TEXTS) or "{" in text):
        return None, text
    unit = load(rule, bag).main
    found = meant(unit, Path(text).stem if "{" not in text else "")
    if not found and not bag.errors:
        raise SpecError([Diagnostic("NL0320", "the text defines no rule", help="`rule mine(lr) { ... }`")])
    return unit, found


def meant(unit: Unit, stem: str) -> str:
    """The rule of a text or a file that is meant: the one called like the file, else the last, if any."""
    names = [name for kind, name in unit.own if kind == "rule"]
    return stem if stem in names else (names[-1] if names else "")


def _call(rule: str, arguments: dict[str, Static]) -> str:
    """The rule with its arguments in the words of the language."""
    given = ", ".join(f"{name} = {literal(value)}" for name, value in arguments.items())
    if not given:
        return rule
    if not rule.rstrip().endswith(")"):
        return f"{rule}({given})"
    inside = rule.rstrip()[:-1]
    return f"{inside}{'' if inside.endswith('(') else ', '}{given})"


def literal(value: Static) -> str:
    """A static value in the words of the language.

    Example:
        >>> literal(True), literal("raw"), literal(1e-3)
        ('true', '"raw"', '0.001')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(literal, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _group(unit: Unit) -> tree.Group | None:
    for item in unit.tree.items:
        if isinstance(item, tree.Train):
            return next((s for s in item.body if isinstance(s, tree.Group)), None)
    return None
