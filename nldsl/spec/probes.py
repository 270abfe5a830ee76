"""Maps, objectives and rules that nothing uses, elaborated on a probe so that their mistakes are found."""

from __future__ import annotations

from dataclasses import replace

from nldsl.source import Span
from nldsl.spec.arguments import complete
from nldsl.spec.functions import elaborate_map, elaborate_objective
from nldsl.spec.items import Item, MapSource, RuleItem
from nldsl.spec.loader import Unit
from nldsl.spec.outer_rules import OuterRule
from nldsl.spec.program import Value
from nldsl.spec.rules import elaborate_rule
from nldsl.spec.session import Session
from nldsl.spec.streams import walk
from nldsl.syntax import tree

PROBE_WIDTH = 48
"""Width of the inputs of a definition that is checked on its own; the usual numbers of heads divide it."""
PROBE_RATE = 0.1
PROBE_NUMBER = 4
"""What a parameter without default that is no stream stands for in such a check."""


def probe_function(session: Session, item: tree.Definition, unit: Unit) -> None:
    """Elaborate a map, an objective or a rule; parameters without default are numbers, of rules values."""
    span = item.name.span
    values = {"map": 1, "objective": 2, "rule": 0}[item.kind]
    free = [p.name.id for p in item.params[values:] if p.default is None]
    memory = free[:1] if item.kind == "objective" else []
    given: dict[str, tuple[Item, Span]] = {}
    for name in free[len(memory) :]:
        given[name] = (_rule_argument(item, unit, name) if item.kind == "rule" else PROBE_NUMBER), span
    options = tuple(p for p in item.params[values:] if p.name.id not in memory)
    bound = complete(session, replace(item, params=options), unit, given, span)
    if bound is None:
        return
    if item.kind == "map":
        elaborate_map(
            session, MapSource("map", item, unit, tuple(bound.items())), PROBE_WIDTH, item.name.id, span
        )
    elif item.kind == "objective":
        elaborate_objective(session, item, unit, bound, (PROBE_WIDTH, (PROBE_WIDTH, PROBE_WIDTH)), span)
    else:
        _probe_rule(session, item, unit, bound)


def _rule_argument(item: tree.Definition, unit: Unit, name: str) -> Item:
    """A parameter of a rule: a rule where the body calls it, else a value."""
    called = any(isinstance(n, tree.Call) and n.function.id == name for n in walk(item.body))
    found = unit.find("rule", "gd") if called else None
    if found is None or not isinstance(found[0], tree.Definition):
        return Value(name, (), "scalar")
    return RuleItem(found[0], found[1], ((found[0].params[0].name.id, PROBE_RATE),))


def _probe_rule(session: Session, item: tree.Definition, unit: Unit, bound: dict[str, Item]) -> None:
    """A rule on its own, for a weight of two axes that is used as `W @ x`."""
    outer = OuterRule(item, unit, tuple(bound.items()), item.name.span)
    elaborate_rule(session, item, unit, bound, outer.probe, True, item.name.span)
