"""What a rule is, as frozen data: memories, recurrence, numbers, how it is computed, where it is stable."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from nldsl.calculus.rule_stability import steepest
from nldsl.calculus.rule_states import rule_states
from nldsl.catalog.bounds import Bounds
from nldsl.catalog.values import Shape
from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.graph.rule_labels import group_label
from nldsl.lowerings.forms import plan_program
from nldsl.plan.rule_rows import looks_at_rows
from nldsl.plan.rules import plan_rule
from nldsl.source import SourceFile
from nldsl.spec.elaborate import elaborate
from nldsl.spec.items import Item, Ref, RuleItem, describe, freeze
from nldsl.spec.loader import Bundle, Unit, standard_library
from nldsl.spec.open_rule import TEXTS, literal, meant
from nldsl.spec.outer_rules import OuterRule
from nldsl.spec.program import GroupRule, Rule, Slot
from nldsl.syntax import parse
from nldsl.view.lowering import lowering_rows
from nldsl.view.pens import Formula
from nldsl.view.rule_equations import rule_lines, rule_settings
from nldsl.view.rule_forms import rule_form

OUT, IN = 11, 7
"""The axes of the matrix that a rule is looked at on; nothing that is shown depends on them."""
_AXES = {OUT: "out", IN: "in"}


@dataclass(frozen=True)
class RuleMemoryRow:
    """A memory of a rule: its size beside `W [out, in]`, and how often others see it change."""

    name: str
    size: str
    clock: str
    start: str


@dataclass(frozen=True)
class RuleNumber:
    """An argument: what it is here, whether it still has to be given, and what may be done with it."""

    name: str
    value: str
    needed: bool
    changes: bool
    bounds: str


@dataclass(frozen=True)
class RuleView:
    """A rule on one kind of weight; `refused` if it takes none of that kind."""

    weights: str
    letter: str
    reason: str
    memories: tuple[RuleMemoryRow, ...] = ()
    total: str = ""
    lines: tuple[Formula, ...] = ()
    settings: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class RulePage:
    """Everything `nldsl explain RULE` says."""

    name: str
    call: str
    title: str
    paper: str
    numbers: tuple[RuleNumber, ...]
    views: tuple[RuleView, ...]
    stability: str
    in_a_write: str
    uses: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def explain_rule(group: GroupRule, given: Collection[str] = ()) -> RulePage:
    """A rule with its arguments, looked at by itself; `given` are those that somebody chose.

    Example:
        >>> from nldsl.spec.open_rule import open_rule
        >>> page = explain_rule(open_rule("adamw", lr=0.1))
        >>> page.views[0].letter, page.views[0].total
        ('element by element', '2 out in')
    """
    outer = group.outer
    assert outer is not None
    title, paper = _comment(outer)
    views = [_view(group, outer, shape) for shape in ((OUT, IN), (OUT,))]
    same = not any(v.refused for v in views) and _seen(views[0]) == _seen(views[1])
    call, written = group_label(group), _in_a_write(outer)
    return RulePage(
        outer.name,
        call,
        title,
        paper,
        tuple(_numbers(outer, given)),
        (_every(views),) if same else tuple(views),
        _stability(outer),
        written,
        tuple(_uses(outer, call, views[0], written)),
    )


def _uses(outer: OuterRule, call: str, matrices: RuleView, written: str) -> Iterator[str]:
    """Where the rule may stand, as it is written there."""
    rule = None if matrices.refused else outer.at((OUT, IN), True)
    if not written.startswith("refused"):
        yield f"in a block: `S[k] <- v  by {call}`, a step on an inner objective"
    if rule is not None and not looks_at_rows(rule) and all(s.initial is None for s in rule.slots):
        yield f"in a model: `F minimizes task  by {call}`, a step on the task's own gradient"
    yield f"in `train`: `{'rest' if matrices.refused else 'matrices'} by {call}`"
    yield f"in a program of your own: {_opened(outer, call)}"


def _opened(outer: OuterRule, call: str) -> str:
    """What opens the rule from Python: a name of the library, or its file, of which one rule is meant."""
    home = outer.unit.file.name
    given = call.removeprefix(outer.name).strip("()")
    keywords = f", {given}" if given else ""
    if home.startswith("specs/"):
        return f'`nldsl.optimizer("{call}", model.parameters())`'
    if home.endswith(TEXTS) and outer.name == meant(outer.unit, Path(home).stem):
        return f'`nldsl.optimizer("{home}", model.parameters(){keywords})`'
    what = f"TEXT ends with `rule {outer.name}(..) {{ .. }}`"
    return f"`nldsl.optimizer(TEXT, model.parameters(){keywords})`, where {what}"


def _comment(outer: OuterRule) -> tuple[str, str]:
    """What stands above the rule: what it is, and the paper."""
    lines = outer.unit.file.text.splitlines()
    at = next((n for n, line in enumerate(lines) if line.startswith(f"rule {outer.name}")), 0)
    above: list[str] = []
    while at > 0 and lines[at - 1].startswith("#"):
        at -= 1
        above.insert(0, lines[at].removeprefix("#").strip())
    title, _, rest = " ".join(above).partition("Paper:")
    return title.strip(), rest.strip()


# --- one kind of weight ------------------------------------------------------------------------------


def _view(group: GroupRule, outer: OuterRule, shape: Shape) -> RuleView:
    weights = "matrices" if len(shape) == 2 else "vectors"
    linear = len(shape) == 2
    computed = [rule_form(group, shape, linear)]
    try:
        rule = outer.at(shape, linear)
    except SpecError as error:
        refused = next(d.message for d in error.diagnostics if d.severity == "error")
        return RuleView(weights, "", "", refused=refused, computed=tuple(computed))
    if looks_at_rows(rule):
        computed.append(rule_form(group, shape, False))
        letter, reason = "row by row", f"`{rule.name}` looks at the input of the layer"
    else:
        plan = plan_rule(rule, shape)
        matrix = plan.form == "matrix"
        letter, reason = ("matrix by matrix" if matrix else "element by element"), _axes(plan.reason)
    sizes = [_size(slot, shape) for slot in rule.slots]
    return RuleView(
        weights,
        letter,
        reason,
        tuple(_memory(slot, shape) for slot in rule.slots),
        _total(rule, sizes, shape),
        rule_lines(rule),
        rule_settings(rule),
        tuple(dict.fromkeys(map(_axes, filter(None, computed)))),
    )


def _axes(text: str) -> str:
    """A sentence about the weight that was tried, about every weight."""
    return re.sub(rf"\b({OUT}|{IN})\b(?=[^`]*\])", lambda n: _AXES[int(n[0])], text)


def _every(views: list[RuleView]) -> RuleView:
    """Matrices and vectors as one."""
    first, second = views
    computed = tuple(dict.fromkeys((*first.computed, *second.computed)))
    return RuleView(**{**vars(first), "weights": "weights of every shape", "computed": computed})


def _seen(view: RuleView) -> object:
    """What has to be the same for matrices and vectors to be told together."""
    return view.letter, view.reason, [(m.name, m.clock) for m in view.memories], view.lines, view.settings


def _size(slot: Slot, shape: Shape) -> Shape:
    return slot.shape_beside(shape)


def _memory(slot: Slot, shape: Shape) -> RuleMemoryRow:
    own = _size(slot, shape)
    named = ", ".join(_AXES.get(n, str(n)) for n in own)
    size = "as large as W" if own == shape else f"[{named}]" if own else "one number"
    clock = "" if slot.clock is None or slot.clock.every == 1 else f"every {slot.clock.every} steps"
    return RuleMemoryRow(
        slot.name, size, clock, "zero" if slot.initial is None else "what is drawn for a map"
    )


def _total(rule: Rule, sizes: list[Shape], shape: Shape) -> str:
    """Numbers beside a weight `[out, in]`: `2 out in + out`; a slow memory is there twice."""
    counts: dict[str, int] = {}
    for slot, size in zip(rule.slots, sizes, strict=True):
        word = _product(size)
        counts[word] = counts.get(word, 0) + (2 if slot.visible else 1)
    ordered = sorted(counts.items(), key=lambda pair: (-len(pair[0].replace("^2", " x").split()), pair[0]))
    written = [str(n) if word == "1" else word if n == 1 else f"{n} {word}" for word, n in ordered]
    return " + ".join(written)


def _product(size: Shape) -> str:
    """`out in`, `out^2`, `1`."""
    words = [_AXES.get(n, str(n)) for n in size]
    return f"{words[0]}^2" if len(words) == 2 and words[0] == words[1] else " ".join(words) or "1"


# --- numbers -----------------------------------------------------------------------------------------


def _numbers(outer: OuterRule, given: Collection[str]) -> Iterator[RuleNumber]:
    """Every argument in the order of the definition; those of rules inside behind them."""
    open_paths = {a.path: a.name for a in outer.open}
    defaults = {p.name.id: p.default is not None for p in outer.definition.params}
    for path, item in _leaves(outer.arguments, ""):
        name = open_paths.get(path, path)
        bounds = outer.bounds[name] if path in open_paths else None
        needed = not defaults.get(path, True) and path not in given
        yield RuleNumber(name, _value(item), needed, path in open_paths, _bounds(bounds))


def _leaves(arguments: tuple[tuple[str, Item], ...], prefix: str) -> Iterator[tuple[str, Item]]:
    for name, item in arguments:
        if isinstance(item, RuleItem):
            yield f"{prefix}{name}", item
            yield from _leaves(item.arguments, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def _value(item: Item) -> str:
    if isinstance(item, RuleItem):
        return item.definition.name.id
    return describe(item) if isinstance(item, Ref) else literal(freeze(item))


def _bounds(bounds: Bounds | None) -> str:
    """`from 0 to below 1`; empty where every number will do."""
    if bounds is None or (bounds.low, bounds.high) == (-inf, inf):
        return ""
    upper = "" if bounds.high == inf else f" to below {bounds.high:g}"
    return f"{bounds.why}: from {bounds.low:g}{upper}"


# --- stability, and a write --------------------------------------------------------------------------


def _stability(outer: OuterRule) -> str:
    """For how steep a loss the weight stays bounded, at the numbers of the rule."""
    shape, linear = next(((s, n) for s, n in (((OUT, IN), True), ((OUT,), False)) if _takes(outer, s, n)))
    rule = outer.at(shape, linear)
    found = rule_states(rule, shape)
    if isinstance(found, str):
        return f"not known: {found}"
    given = {a.name: a.value for a in outer.open}
    most = steepest(found, {name: given[spoken.name] for name, spoken in rule.arguments})
    if isinstance(most, str):
        return f"not known: {most}"
    if most == 0.0:
        return "grows on every loss, a flat one too"
    if most == inf:
        return "bounded on a loss of every curvature"
    rate = given.get("lr", 0.0)
    scaled = f", lr h <= {most * rate:.4g}" if rate else ""
    unit = " along an input of length one" if looks_at_rows(rule) else ""
    return f"on a loss of curvature h (g = h W){unit} all stays bounded while h <= {most:.4g}{scaled}"


def _takes(outer: OuterRule, shape: Shape, linear: bool) -> bool:
    try:
        outer.at(shape, linear)
    except SpecError:
        return False
    return True


def _in_a_write(outer: OuterRule) -> str:
    """How `S[k] <- v by` this rule is computed for a matrix that is written at every token."""
    text = (
        "block shown(x) {\n  level tokens every 1 token { memory S = matrix() }\n"
        f"  S[l2norm(linear(x))] <- linear(x)  by {_call(outer)}\n  return S[x]\n}}\n"
    )
    bag, file = DiagnosticBag(), SourceFile("<shown>", text)
    unit = Unit(file, parse(file, bag), standard_library())
    unit.uses.append(outer.unit)
    try:
        program = elaborate(Bundle(unit), block="shown", arguments={"dim": IN}, bag=bag)
        if program is None or bag.errors:
            return f"refused: {bag.errors[0].message}" if bag.errors else ""
        (row,) = lowering_rows(plan_program(program))
    except SpecError as error:
        return f"refused: {error.diagnostics[0].message}"
    how = f"chunks of {row.width}; " if row.lowering != "sequential" else ""
    return f"{row.lowering}: {how}{row.reason}"


def _call(outer: OuterRule) -> str:
    return f"{outer.name}({', '.join(f'{name} = {_written(item)}' for name, item in outer.arguments)})"


def _written(item: Item) -> str:
    if isinstance(item, RuleItem):
        inside = ", ".join(f"{name} = {_written(one)}" for name, one in item.arguments)
        return f"{item.definition.name.id}({inside})"
    return item.name if isinstance(item, Ref) else literal(freeze(item))
