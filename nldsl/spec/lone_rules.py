"""The rules that a source stands for: what `verify` and `explain` take where a rule stands alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

from nldsl.catalog.values import Static
from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.spec.loader import Unit, load
from nldsl.spec.open_rule import literal, open_rule
from nldsl.spec.program import GroupRule
from nldsl.syntax import tree


def rules_in(source: str | Path, arguments: Mapping[str, Static]) -> list[GroupRule]:
    """The rules a source stands for: the one it names, or all of a file of rules; else none.

    What a rule must be given and is not gets a usual value: 0.02, or momentum where it wants a rule.
    """
    bag = DiagnosticBag()
    bundle = load(source, bag)
    kinds = {kind for kind, _ in bundle.main.own}
    named = bundle.wanted is not None and bundle.wanted[0] == "rule"
    if bag.errors or (bundle.wanted is not None and not named) or not (named or kinds == {"rule"}):
        return []
    definitions = [d for d in bundle.main.own.values() if isinstance(d, tree.Definition)]
    wanted = bundle.wanted[1] if bundle.wanted is not None else None
    chosen = [d for d in definitions if wanted in (None, d.name.id) and d.kind == "rule"]
    return [_with_usual(bundle.main, d, arguments) for d in chosen]


def _with_usual(home: Unit, definition: tree.Definition, arguments: Mapping[str, Static]) -> GroupRule:
    """A rule with usual values for what it needs and was not given."""
    missing = [p.name.id for p in definition.params if p.default is None and p.name.id not in arguments]
    given = ", ".join(f"{n} = {literal(v)}" for n, v in arguments.items())
    failures: list[SpecError] = []
    for choice in product(("0.02", "momentum(lr = 0.02)"), repeat=len(missing)):
        usual = ", ".join(f"{n} = {v}" for n, v in zip(missing, choice, strict=True))
        call = f"{definition.name.id}({', '.join(filter(None, (usual, given)))})"
        try:
            return open_rule(call, home=home)
        except SpecError as error:
            failures.append(error)
    raise failures[0]
