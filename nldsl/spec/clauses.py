"""The clauses of a write: its objective, its rule, and what concerns the write as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nldsl.catalog.values import Shape
from nldsl.diagnostics import Label, did_you_mean
from nldsl.source import Span
from nldsl.spec.expressions import evaluate
from nldsl.spec.frame import Frame
from nldsl.spec.functions import BoundDefinition, bind_definition, elaborate_objective
from nldsl.spec.gates import Axis, gate, lone, per_weight
from nldsl.spec.items import POISON, Item, MemoryBox, PerValue, RuleItem, describe, is_static
from nldsl.spec.linear import linear_weights
from nldsl.spec.program import Function, Rule, Value
from nldsl.spec.rules import View, elaborate_rule
from nldsl.spec.static import whole_number
from nldsl.syntax import tree

PROJECTIONS = ("rownorm", "orthogonalize")
"""What may stand behind `project`."""


@dataclass(frozen=True)
class Shared:
    """The clauses that concern a write as a whole."""

    retain: Value | None
    axis: Axis
    toward: Literal["zero", "init"]
    base_every: int
    at_commit: bool
    project: str | None


def objective_of(frame: Frame, node: tree.Expr | None, box: MemoryBox, span: Span) -> Function | None:
    """The objective behind `minimize`, `l2` if left out."""
    if node is None:
        node = tree.Name(span=span, id="l2")
    found = bind_definition(frame, node, "objective", ("NL0304", "an objective such as `l2`"), 2)
    if found is POISON and not isinstance(node, tree.Call | tree.Name):
        return None
    if found is POISON or box.function is None:
        return None
    definition, unit, bound = found
    options = _objective_options(frame, definition, bound, node)
    if options is None:
        return None
    weights = box.function.weights
    single = weights[0].shape if len(weights) == 1 and len(weights[0].shape) == 2 else None
    return elaborate_objective(frame.session, definition, unit, options, (box.value_size, single), node.span)


def _objective_options(
    frame: Frame, definition: tree.Definition, bound: dict[str, Item], node: tree.Expr
) -> dict[str, Item] | None:
    """Options of an objective are static."""
    for name, item in bound.items():
        if not is_static(item):
            frame.session.report(
                "NL0403",
                f"`{name}` of objective `{definition.name.id}` must be known when the program is compiled",
                node.span,
                describe(item),
            )
            return None
    return bound


def bind_rule(frame: Frame, node: tree.Expr) -> BoundDefinition | None:
    """The definition behind `by` with its arguments; they are evaluated here, once."""
    found = bind_definition(frame, node, "rule", ("NL0305", "a rule such as `gd(lr = 0.1)`"), 0)
    return None if found is POISON else found


def bound_rule(frame: Frame, found: BoundDefinition, box: MemoryBox, span: Span) -> Rule | None:
    """A rule with its arguments, checked on every weight of the memory; the first weight's is kept."""
    if box.function is None:
        return None
    definition, unit, bound = found
    views: dict[str, View] = {}
    plain = _views(frame, box, bound, f"`{definition.name.id}`", span, views)
    if plain is None:
        return None
    linear = linear_weights(box.function)
    rules = {
        use: elaborate_rule(frame.session, definition, unit, plain, w.shape, w.name in linear, span, views)
        for use, w in _distinct(box.function, linear).items()
    }
    whole = {use: r for use, r in rules.items() if r is not None}
    if len(whole) < len(rules) or not rules or not _one_code(frame, box, list(whole.values()), span):
        return None
    of_weights = [(w.shape, whole[_use(w, linear)]) for w in box.function.weights]
    return _own_starts(frame, box, _shaped(of_weights), span)


def _shaped(of_weights: list[tuple[Shape, Rule]]) -> Rule:
    """The rule of the first weight, whose slots know their shapes beside the others."""
    first, rule = of_weights[0]
    slots = []
    for n, slot in enumerate(rule.slots):
        shapes = tuple(own.slots[n].shape_beside(weight) for weight, own in of_weights)
        if any(own.slots[n].shape is not None for _, own in of_weights) and len(set(shapes)) > 1:
            slot = replace(slot, shape=slot.shape_beside(first), shapes=shapes)
        slots.append(slot)
    return replace(rule, slots=tuple(slots))


def _one_code(frame: Frame, box: MemoryBox, rules: list[Rule], span: Span) -> bool:
    """Whether a rule is the same code for weights of every size: one function steps all of a memory."""
    codes = [[(step.op, step.options) for step in rule.function.body] for rule in rules]
    other = next((code for code in codes if code != codes[0]), None)
    if other is None or box.function is None:
        return True
    own = next((a[0] for a, b in zip(codes[0], other, strict=False) if a != b), "its statements")
    sizes = " and ".join(
        str(list(shape)) for shape, _ in _distinct(box.function, linear_weights(box.function))
    )
    frame.session.report(
        "NL0425",
        f"`{rules[0].name}` is other code for every size of weight (`{own}`), which only memories of one "
        "size can have",
        span,
        f"the weights of `{box.name}` are {sizes}",
        help="use `matrix()`, or a rule such as `momentum`",
    )
    return False


def _views(
    frame: Frame,
    box: MemoryBox,
    bound: dict[str, Item],
    what: str,
    span: Span,
    views: dict[str, View],
    path: str = "",
) -> dict[str, Item] | None:
    """The arguments without marks; `views` gathers what a weight sees, by path through nested rules."""
    plain: dict[str, Item] = {}
    for name, item in bound.items():
        here = f"{path}{name}"
        if isinstance(item, RuleItem):
            inside = _views(frame, box, dict(item.arguments), what, span, views, f"{here}.")
            if inside is None:
                return None
            item = replace(item, arguments=tuple(inside.items()))
        if isinstance(item, Value | PerValue):
            axis: Literal["key", "value"] = "value" if isinstance(item, PerValue) else "key"
            item = lone(frame, box, item.value if isinstance(item, PerValue) else item, span)
            if item is POISON:
                return None
            view = per_weight(frame, box, item, f"`{name}` of {what}", span, axis)
            if view is None:
                return None
            views[here] = view
        plain[name] = item
    return plain


def _own_starts(frame: Frame, box: MemoryBox, rule: Rule, span: Span) -> Rule | None:
    """Where the deep memories of a rule start: learned parameters that hang below the memory."""
    if all(slot.initial is None for slot in rule.slots):
        return rule
    if box.function is None or len(box.function.weights) > 1:
        frame.session.report(
            "NL0425",
            f"`{rule.name}` keeps a memory with a map of its own, which only memories of one weight can have",
            span,
            f"`{box.name}` has several",
            help="use `matrix()`, or a rule such as `momentum`",
        )
        return None
    heads = (box.heads,) if box.heads else ()
    slots = []
    for slot in rule.slots:
        start = slot.initial
        if start is not None:
            start = replace(start, path=f"{box.name}.{start.path}", shape=(*heads, *start.shape))
            box.slow = (*box.slow, start)
        slots.append(replace(slot, initial=start))
    return replace(rule, slots=tuple(slots))


def _use(weight: Value, linear: frozenset[str]) -> tuple[Shape, bool]:
    """What a rule depends on: the shape of a weight, and whether it has an input."""
    return weight.shape, weight.name in linear


def _distinct(function: Function, linear: frozenset[str]) -> dict[tuple[Shape, bool], Value]:
    """One weight for every shape and use."""
    found: dict[tuple[Shape, bool], Value] = {}
    for weight in function.weights:
        found.setdefault(_use(weight, linear), weight)
    return found


def shared_clauses(frame: Frame, node: tree.Write, box: MemoryBox) -> Shared | None:
    """Retention, base, commit and projection: behind the brace, or on the only term that has them."""
    clauses = [t.clauses for t in node.terms] + ([node.clauses] if node.braces else [])
    retain = _only(frame, [c.retain for c in clauses], "retain")
    toward = _only(frame, [c.toward for c in clauses], "toward")
    every = _only(frame, [c.gradient_every for c in clauses], "gradient every")
    project = _only(frame, [c.project for c in clauses], "project")
    gated = gate(frame, box, retain) if retain is not None and not box.softmax else None
    if retain is not None and gated is None and not box.softmax:
        return None
    center = toward_of(frame, toward)
    base = max(box.clock.every, 1)
    if every is not None:
        count = whole_number(
            frame.session, evaluate(frame, every), "`gradient every`", every.span, code="NL0501"
        )
        base = 0 if count is POISON else count
    projected = _project(frame, project)
    if center is None or not base or projected is None:
        return None
    at_commit = any(c.at_commit for c in clauses)
    return Shared(
        gated.value if gated else None,
        gated.axis if gated else "scalar",
        center,
        base,
        at_commit,
        projected or None,
    )


def _only(frame: Frame, given: list[tree.Expr | None], word: str) -> tree.Expr | None:
    """The clause of a write that at most one of its terms may carry."""
    found = [g for g in given if g is not None]
    if len(found) > 1:
        frame.session.report(
            "NL0421",
            f"`{word}` concerns the write as a whole and is given twice",
            found[1].span,
            "again here",
            secondary=(Label(found[0].span, "first here"),),
            help="write it once, behind the closing brace",
        )
    return found[0] if found else None


def toward_of(frame: Frame, node: tree.Expr | None) -> Literal["zero", "init"] | None:
    if node is None or (isinstance(node, tree.Name) and node.id == "zero"):
        return "zero"
    if isinstance(node, tree.Name) and node.id == "init":
        return "init"
    frame.session.report("NL0421", "`toward` takes `init` or `zero`", node.span, "expected `init`")
    return None


def _project(frame: Frame, node: tree.Expr | None) -> str | None:
    """The projection's name, empty if there is none."""
    if node is None:
        return ""
    name = node.id if isinstance(node, tree.Name) else ""
    if name in PROJECTIONS:
        return name
    frame.session.report(
        "NL0421",
        "`project` takes the name of a projection",
        node.span,
        "unknown projection",
        help=did_you_mean(name, PROJECTIONS) or "`project rownorm`",
    )
    return None
