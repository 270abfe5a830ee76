"""Rules of the outer levels: a rule with its arguments, elaborated for every weight it is to train.

Numbers that the text uses as values stay open, so that a schedule or a person can change them from step
to step; what decides the code itself (`if`, clocks, options of primitives) is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from nldsl.catalog.bounds import Bounds
from nldsl.catalog.values import Shape, Static
from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.source import Span
from nldsl.spec.items import Item, RuleItem, freeze, is_number
from nldsl.spec.loader import Unit
from nldsl.spec.program import Rule, Value
from nldsl.spec.rule_bounds import bounds_by_path
from nldsl.spec.rules import elaborate_rule
from nldsl.spec.session import Session
from nldsl.syntax import tree

PROBES: tuple[Shape, ...] = ((3, 2), (67, 64), (4099, 4096))
"""Matrices on which a rule is tried before its weights are known: one that keeps a few columns needs more."""


def weight_shape(shape: Shape) -> Shape:
    """The shape of what a rule sees of a parameter: `[heads, out, in]` is a matrix per head.

    Example:
        >>> weight_shape((4, 8, 8)), weight_shape(())
        ((8, 8), (1,))
    """
    return shape[-2:] if len(shape) == 3 else shape or (1,)


Arguments = tuple[tuple[str, Item], ...]


@dataclass(frozen=True)
class OpenArgument:
    """A number that may change from step to step.

    `name` is what people call it, `path` where it stands (`inner.lr` in `lookahead(inner = adamw(...))`).
    """

    name: str
    path: str
    value: float


@dataclass(frozen=True, eq=False)
class OuterRule:
    """A rule as it stands behind `by` in `train`: definition, home and bound arguments."""

    definition: tree.Definition
    unit: Unit
    arguments: Arguments
    span: Span
    known: dict[tuple[Shape, bool], Rule] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The name of the definition."""
        return self.definition.name.id

    @cached_property
    def open(self) -> tuple[OpenArgument, ...]:
        """The numbers of the rule that may change, rules in rules included."""
        tried: tuple[tuple[Shape, bool], ...] = (self.probe, True), (self.probe[:1], False)
        usual = [(shape, linear, self._findings(shape, linear, frozenset())) for shape, linear in tried]
        leaves = [path for path, _ in _numbers(self.arguments)]
        free = [
            path
            for path in leaves
            if all(self._findings(s, linear, frozenset({path})) == found for s, linear, found in usual)
        ]
        numbers = dict(_numbers(self.arguments))
        return tuple(OpenArgument(name, path, float(numbers[path])) for path, name in _spoken(free).items())

    @cached_property
    def probe(self) -> Shape:
        """The first of the matrices on which least is refused for its size (NL0410)."""
        refused: dict[Shape, int] = {}
        for probe in PROBES:
            found = self._findings(probe, True, frozenset())
            refused[probe] = sum(f.startswith("NL0410") for f in found)
            if not refused[probe]:
                break
        return min(refused, key=lambda p: refused[p])

    @property
    def bounds(self) -> dict[str, Bounds]:
        """What the open numbers may be, by their names."""
        known = {path: found for path, found, _ in bounds_by_path(self.definition, self.arguments)}
        return {a.name: known[a.path] for a in self.open}

    @property
    def fixed(self) -> tuple[tuple[str, Static], ...]:
        """What decides the code: every argument that is not open, rules in rules as text."""
        paths = {a.path for a in self.open}
        return tuple((n, freeze(i)) for n, i in self.arguments if n not in paths)

    def at(self, shape: Shape, linear: bool) -> Rule:
        """The rule for a weight of this shape; `linear` says whether it is used as `W @ x`.

        Errors: `SpecError` with what the text has to say about such a weight.
        """
        key = (shape, linear)
        if key not in self.known:
            bag = DiagnosticBag()
            rule = self._elaborated(bag, shape, linear, frozenset(a.path for a in self.open))
            if rule is None or bag.errors:
                raise SpecError(bag.items)
            self.known[key] = rule
        return self.known[key]

    def refusal(self, shape: Shape) -> str:
        """Why the rule cannot train a weight of this shape; empty if it can.

        A rule that looks at inputs trains weights without one too, by their gradient alone.
        """
        first = self._findings(self.probe, True, frozenset())
        found = self._findings(weight_shape(shape), False, frozenset())
        bad = [f for f in found if not f.startswith("NL0420")]
        return "" if first or not bad else bad[0].partition(" ")[2]

    def _findings(self, shape: Shape, linear: bool, free: frozenset[str]) -> list[str]:
        """What is wrong if the arguments at these paths stay open."""
        bag = DiagnosticBag()
        self._elaborated(bag, shape, linear, free)
        return [f"{d.code} {d.message}" for d in bag.errors]

    def _elaborated(
        self, bag: DiagnosticBag, shape: Shape, linear: bool, free: frozenset[str]
    ) -> Rule | None:
        names = _spoken([path for path, _ in _numbers(self.arguments) if path in free])
        bound = dict(_opened(self.arguments, names, ""))
        session, rule = Session(bag), None
        with session.bounded(self.span):
            rule = elaborate_rule(session, self.definition, self.unit, bound, shape, linear, self.span)
        return rule


def _numbers(arguments: Arguments, prefix: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number among the arguments, with its path."""
    for name, item in arguments:
        if isinstance(item, RuleItem):
            yield from _numbers(item.arguments, f"{prefix}{name}.")
        elif is_number(item):
            yield f"{prefix}{name}", item


def _opened(arguments: Arguments, names: dict[str, str], prefix: str) -> Iterator[tuple[str, Item]]:
    """The arguments with those at the paths of `names` as values of that name."""
    for name, item in arguments:
        path = f"{prefix}{name}"
        if isinstance(item, RuleItem):
            inside = tuple(_opened(item.arguments, names, f"{path}."))
            yield name, RuleItem(item.definition, item.unit, inside)
        else:
            yield name, Value(names[path], (), "scalar") if path in names else item


def _spoken(paths: list[str]) -> dict[str, str]:
    """What each path is called: its last name if that is free, else the whole path with `_`.

    Example:
        >>> _spoken(["mix", "inner.lr", "inner.mix"])
        {'mix': 'mix', 'inner.lr': 'lr', 'inner.mix': 'inner_mix'}
    """
    names: dict[str, str] = {}
    for path in sorted(paths, key=lambda p: (p.count("."), paths.index(p))):
        short = path.rpartition(".")[2]
        names[path] = short if short not in names.values() else path.replace(".", "_")
    return {path: names[path] for path in paths}
