"""Rules inside of rules: one that is given as an argument, and statements on a slower clock."""

from __future__ import annotations

from nldsl.source import Span
from nldsl.spec.arguments import bind_arguments, complete
from nldsl.spec.calls import CALLABLE, RULE_CALLS, Results
from nldsl.spec.expressions import value_of
from nldsl.spec.frame import Frame, assigned_names
from nldsl.spec.items import POISON, Item, Poison, RuleItem, describe, is_number
from nldsl.spec.loader import Unit
from nldsl.spec.primitives import apply
from nldsl.spec.program import Value
from nldsl.spec.rules import MissingInput, RuleState, state_of, step_clock
from nldsl.spec.statements import HANDLERS, run
from nldsl.syntax import tree

SEEN = ("x", "dy")
"""What only weights in `W @ x` have."""


def inline(
    frame: Frame,
    item: RuleItem,
    weight: Value,
    given: dict[str, Value],
    span: Span,
) -> Value | Poison:
    """One application of a rule to `weight` inside of another: its new value.

    The statements of the inner rule become part of the outer one, its memories too.  `given` holds the
    gradient `g`, and `x` and `dy` where there are any.
    """
    definition, outer = item.definition, state_of(frame)
    with frame.session.inside(id(definition), definition.name.id, span) as fresh:
        if not fresh:
            return POISON
        names: dict[str, Item] = {**given, **dict(item.arguments), "W": weight, "step": outer.inputs["step"]}
        inner = Frame(frame.session, item.unit, "rule", definition.name.id, names, frame.namer)
        inner.assigned = {n: s for n, s in assigned_names(definition.body).items() if n != "W"}
        inner.body, inner.constants, inner.paths = frame.body, frame.constants, frame.paths
        state = RuleState(weight, inputs=outer.inputs, arguments=outer.arguments, span=span)
        inner.state = state
        for name in SEEN:
            if name not in given:
                inner.hooks[name] = MissingInput(frame.session, definition, name, span)
        run(inner, definition.body)
        number = len(outer.slots)
        for name, slot in state.slots.items():
            outer.slots[f"{definition.name.id} {number} {name}"] = slot
            outer.running[f"{definition.name.id} {number} {name}"] = state.running[name]
    result = inner.names["W"]
    return result if isinstance(result, Value) else POISON


def call_item(frame: Frame, node: tree.Call, item: RuleItem) -> Results:
    """`inner(g)`: where `W` stands after one step of the rule `inner` along the gradient `g`."""
    outer = state_of(frame)
    weight = frame.names["W"]
    if len(node.args) > 1 or any(a.name for a in node.args):
        return (
            frame.session.report(
                "NL0307", "a rule that was given as an argument takes one gradient", node.span, "`inner(g)`"
            ),
        )
    if outer.frozen:
        return (
            frame.session.report(
                "NL0313", "a rule takes its steps outside of `every`", node.span, "would miss steps"
            ),
        )
    g = value_of(frame, node.args[0].value) if node.args else frame.names["g"]
    if not isinstance(g, Value) or not isinstance(weight, Value):
        return (POISON,)
    if g.shape != weight.shape:
        return (
            frame.session.report(
                "NL0401",
                f"a gradient of shape {list(weight.shape)} is needed, found {describe(g)}",
                node.span,
            ),
        )
    given = {"g": g}
    plain = g == outer.inputs.get("g")
    given |= {n: outer.inputs[n] for n in SEEN if plain and n in outer.inputs}
    return (inline(frame, item, weight, given, node.span),)


def _call_definition(
    frame: Frame, node: tree.Call, definition: tree.Definition, unit: Unit, targets: tuple[str | None, ...]
) -> Results:
    """`inner(g)` where `inner` names a rule without arguments: those it has by default."""
    if node.function.id == definition.name.id:
        return (
            frame.session.report(
                "NL0314",
                f"`{definition.name.id}` is a rule; another rule takes it as an argument",
                node.function.span,
                "a rule",
                help=f"`rule outer(inner = {definition.name.id}(lr = 0.1)) {{ W = inner(g) }}`",
            ),
        )
    bare = tree.Call(span=node.span, function=node.function, args=())
    given = bind_arguments(frame, definition, bare)
    bound = None if given is None else complete(frame.session, definition, unit, given, node.span)
    if bound is None:
        return (POISON,)
    return call_item(frame, node, RuleItem(definition, unit, tuple(bound.items())))


def every(frame: Frame, node: tree.Every) -> None:
    """`every N steps { ... }`: what the statements assign holds at every N-th application of the rule."""
    clock, outer = step_clock(frame, node.clock), state_of(frame)
    names = dict(frame.names)
    running = dict(outer.running)
    frozen, outer.frozen = outer.frozen, True
    run(frame, node.body)
    outer.frozen = frozen
    if clock is None or clock.every == 1:
        return
    fires = apply(frame, "multiple_of", (outer.inputs["step"],), {"of": clock.every}, node.span)
    for name in assigned_names(node.body):
        if name not in outer.slots:
            _between(frame, fires, name, names.get(name), node.span)
    for name, value in outer.running.items():
        if name in running and running[name] is not value:
            outer.running[name] = chosen = _kept(frame, fires, value, running[name], node.span)
            if not outer.slots[name].visible:
                frame.names[name] = chosen


def _between(frame: Frame, fires: Value | Poison, name: str, before: Item | None, span: Span) -> None:
    """What `name` is behind `every`: what it was where the clock does not fire.

    Errors: NL0408 for what the code depends on and no step can change.
    """
    after = frame.names.get(name)
    if before is None:
        frame.names.pop(name, None)
    elif before is after or before is POISON or after is None or after is POISON:
        return
    elif _steps(before) and _steps(after):
        old, new = (frame.constant(i, span) if is_number(i) else i for i in (before, after))
        assert isinstance(old, Value) and isinstance(new, Value)
        frame.names[name] = _chosen(frame, fires, new, old, name, span)
    elif before != after:
        message = f"`{name}` is {describe(before)} and cannot change inside of `every`"
        frame.names[name] = frame.session.report("NL0408", message, span, describe(after))


def _steps(item: Item) -> bool:
    """Whether an item may change from step to step."""
    return isinstance(item, Value) or is_number(item)


def _kept(frame: Frame, fires: Value | Poison, after: Value, before: Value, span: Span) -> Value:
    chosen = _chosen(frame, fires, after, before, None, span)
    return chosen if isinstance(chosen, Value) else before


def _chosen(
    frame: Frame, fires: Value | Poison, after: Value, before: Value, name: str | None, span: Span
) -> Value | Poison:
    """`after` where the clock fires, else `before`."""
    if fires is POISON:
        return POISON
    return apply(frame, "where", (fires, after, before), {}, span, name)


HANDLERS["rule", tree.Every] = every
CALLABLE["rule"] = ("rule", _call_definition)
RULE_CALLS["rule"] = call_item
