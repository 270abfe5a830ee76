"""Update rules: one application to one weight `W`, as straight-line code with its slots."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeGuard

from nldsl.catalog.values import Kind, Shape
from nldsl.diagnostics import Diagnostic
from nldsl.source import Span
from nldsl.spec.expressions import evaluate
from nldsl.spec.frame import Frame, Namer, assigned_names
from nldsl.spec.items import POISON, Item, Poison, RuleItem, describe, freeze, is_number, is_static
from nldsl.spec.loader import Unit
from nldsl.spec.primitives import apply
from nldsl.spec.program import Clock, Function, Rule, Slot, Value
from nldsl.spec.session import Session
from nldsl.spec.statements import HANDLERS, assign, run
from nldsl.spec.static import whole_number
from nldsl.syntax import tree


@dataclass(frozen=True)
class View:
    """What one weight of one head sees of an argument, and along which axis it runs."""

    value: Value
    axis: Literal["scalar", "key", "value"]


@dataclass(eq=False)
class RuleState:
    """What a rule's frame keeps besides names: its slots and their running values."""

    weight: Value
    slots: dict[str, Slot] = field(default_factory=dict)
    running: dict[str, Value] = field(default_factory=dict)
    inputs: dict[str, Value] = field(default_factory=dict)
    clock: Clock | None = None
    deep: dict[str, Any] = field(default_factory=dict)
    """Memories with a map of their own, by name (`rule_memories`)."""
    arguments: dict[str, Value] = field(default_factory=dict)
    """Arguments that are values of the enclosing block, by the name of the rule's input."""
    span: Span | None = None
    """Where the rule is used."""
    frozen: bool = False
    """Inside of `every`: what runs here does not count steps of its own."""


def elaborate_rule(
    session: Session,
    definition: tree.Definition,
    unit: Unit,
    bound: dict[str, Item],
    weight: Shape,
    linear: bool,
    span: Span,
    views: dict[str, View] | None = None,
) -> Rule | None:
    """A rule with its arguments bound, for a weight of shape `weight`.

    `linear` says whether the weight is used as `W @ x`, which gives it an input `x` and an output
    gradient `dy`.  `views` are the value arguments as one weight of one head sees them.
    Errors: NL0420 for `x` or `dy` of a weight that has none, and whatever the text has.
    """
    with session.inside(id(definition), definition.name.id, span) as fresh:
        if not fresh:
            return None
        frame, state = _open(session, definition, unit, bound, weight, linear, span, views or {})
        wrong = _faulty(session, frame, definition, bound)
    result = frame.names["W"]
    # A write `W[x] <- ...` that is refused leaves `W` as it was: what is wrong has been said.
    if result is POISON or (isinstance(result, Value) and result.name == "W" and wrong):
        return None
    if not _moves(result, session, definition, weight):
        return None
    outputs = (result, *(state.running[name] for name in state.slots))
    used = {v.name for a in frame.body for v in a.args} | {v.name for v in outputs}
    inputs = tuple(v for v in state.inputs.values() if v.name in used)
    function = Function(definition.name.id, inputs, (), tuple(frame.body), outputs, definition.span)
    arguments = tuple(state.arguments.items())
    static = tuple(sorted((n, freeze(v)) for n, v in bound.items() if is_static(v)))
    return Rule(definition.name.id, function, tuple(state.slots.values()), arguments, static)


def _moves(result: Item, session: Session, definition: tree.Definition, weight: Shape) -> TypeGuard[Value]:
    """Whether a rule gives `W` a new value of its shape; what is wrong is reported."""
    name, span = definition.name.id, definition.name.span
    if isinstance(result, Value) and result.name == "W":
        session.report("NL0324", f"rule `{name}` never changes `W`", span, "expected `W = ...`")
        return False
    if isinstance(result, Value) and result.shape == weight:
        return True
    found = f"the shape {list(result.shape)}" if isinstance(result, Value) else describe(result)
    message = f"rule `{name}` gives `W` {found}, expected {list(weight)}"
    session.report("NL0401", message, span, "changes the shape")
    return False


def _faulty(session: Session, frame: Frame, definition: tree.Definition, bound: dict[str, Item]) -> bool:
    """Run the text of a rule; whether it has errors.

    An argument that is no number where the rule computes with one is told once, by its name.
    """
    with session.collecting() as found:
        run(frame, definition.body)
    told = set[str]()
    for item in found.items:
        better = _no_number(definition, bound, item)
        if better is None or better.message not in told:
            session.bag.add(better or item)
        told |= {better.message} if better else set()
    return bool(found.errors)


def _no_number(definition: tree.Definition, bound: dict[str, Item], item: Diagnostic) -> Diagnostic | None:
    """What `item` says, by the name of the argument that should be a number and is none."""
    if item.code != "NL0404":
        return None
    for parameter in definition.params:
        name, usual = parameter.name.id, parameter.default
        given = bound[name]
        inside = (
            _no_number(given.definition, dict(given.arguments), item) if isinstance(given, RuleItem) else None
        )
        if inside is not None:
            return inside
        number = usual is None or isinstance(usual, tree.Number)
        if number and isinstance(given, str | bool) and item.message.endswith(f"found {describe(given)}"):
            message = f"`{name}` of `{definition.name.id}` must be a number, found {describe(given)}"
            value = usual.value if isinstance(usual, tree.Number) else 0.1
            return replace(item, message=message, help=f"for example `{name} = {value}`")
    return None


def _open(
    session: Session,
    definition: tree.Definition,
    unit: Unit,
    bound: dict[str, Item],
    shape: Shape,
    linear: bool,
    span: Span,
    views: dict[str, View],
) -> tuple[Frame, RuleState]:
    """The frame of a rule: what it may name."""
    assigned = {n: s for n, s in assigned_names(definition.body).items() if n != "W"}
    namer = Namer(assigned)
    kind: Kind = "matrix" if len(shape) == 2 else "vector"
    weight = Value(namer.variable("W"), shape, kind)
    state = RuleState(weight, span=span)
    given = {"W": weight, "g": Value(namer.variable("g"), shape, kind), "step": Value("step", (), "scalar")}
    if linear:
        given["x"] = Value(namer.variable("x"), shape[1:], "vector")
        given["dy"] = Value(namer.variable("dy"), shape[:1], "vector")
    frame = Frame(session, unit, "rule", definition.name.id, {}, namer, assigned)
    frame.state = state
    seen = {name: _seen(frame, name, item, views, name) for name, item in bound.items()}
    state.inputs = {**given, **state.inputs}
    frame.names = {**given, **seen}
    if not linear:
        for name in ("x", "dy"):
            frame.hooks[name] = MissingInput(session, definition, name, span)
    return frame, state


def _seen(frame: Frame, name: str, item: Item, views: dict[str, View], path: str) -> Item:
    """An argument as the body of the rule sees it; `path` says where it stands in nested rules."""
    if isinstance(item, RuleItem):
        inside = tuple((n, _seen(frame, f"{name}_{n}", i, views, f"{path}.{n}")) for n, i in item.arguments)
        return replace(item, arguments=inside)
    if not isinstance(item, Value):
        return item
    state = state_of(frame)
    view = views.get(path, View(item, "scalar"))
    value = Value(frame.namer.variable(name), view.value.shape, view.value.kind)
    state.inputs[value.name] = value
    state.arguments[value.name] = item
    return _per_channel(frame, value, view.axis) if value.kind == "vector" else value


def _per_channel(frame: Frame, value: Value, axis: str) -> Item:
    """A rate per channel as a matrix like `W`: the same down every column, or along every row."""
    state = state_of(frame)
    weight, span = state.weight, state.span
    assert span is not None
    wanted = weight.shape[-1 if axis == "key" else 0]
    if len(weight.shape) != 2 or value.shape != (wanted,):
        return frame.session.report(
            "NL0418",
            f"a rate per {axis} channel must have {wanted} of them, found {describe(value)}",
            span,
            describe(value),
            help="one number is `linear(x, 1)`; for one per head the memory is declared `per head`",
        )
    like: Value | Poison = weight
    if axis == "key":
        like = apply(frame, "transpose", (weight,), {}, span, derived=True)
    spread = POISON if like is POISON else apply(frame, "expand_last", (value, like), {}, span, derived=True)
    if axis == "value" or spread is POISON:
        return spread
    return apply(frame, "transpose", (spread,), {}, span, derived=True)


class MissingInput:
    """Reports a rule that asks for the input of a weight that has none."""

    def __init__(self, session: Session, definition: tree.Definition, name: str, span: Span) -> None:
        self.session, self.definition, self.name, self.span = session, definition, name, span

    def __call__(self) -> Poison:
        return self.session.report(
            "NL0420",
            f"rule `{self.definition.name.id}` asks for `{self.name}`, which only weights in `W @ x` have",
            self.span,
            "needs the weight's own input",
            help="use a rule that needs only the gradient, such as `gd`",
        )


def state_of(frame: Frame) -> RuleState:
    """What the frame of a rule keeps besides names."""
    state: RuleState = frame.state
    return state


def _assign(frame: Frame, node: tree.Assign) -> None:
    """Assignment to a slot sets its running value; on a slow clock others see the committed one."""
    state, name = state_of(frame), node.targets[0].id
    if len(node.targets) > 1 or name not in state.slots:
        assign(frame, node)
        return
    slot = state.slots[name]
    frame.names[name] = state.running[name]
    assign(frame, node)
    result = _like_slot(frame, frame.names[name], state.running[name], node.span)
    wanted = state.running[name].shape
    if isinstance(result, Value) and result.shape == wanted:
        state.running[name] = frame.names[name] = result
    elif result is not POISON:
        frame.session.report(
            "NL0401",
            f"`{name}` has the shape {list(wanted)}, found {describe(result)}",
            node.value.span,
            describe(result),
        )
    if slot.visible:
        frame.names[name] = state.inputs[slot.visible]


def _like_slot(frame: Frame, result: Item, running: Value, span: Span) -> Item:
    """A number stands for every element of a memory: `m = 0` is how one starts again."""
    number = frame.constant(result, span) if is_number(result) else result
    if not isinstance(number, Value) or number.shape or not (running.shape or is_number(result)):
        return number
    everywhere = frame.constant(1, span)
    return apply(frame, "where", (everywhere, number, running), {}, span, derived=True)


def _level(frame: Frame, node: tree.LevelDecl) -> None:
    """`level long every N steps { memory ... }`."""
    state = state_of(frame)
    outer, state.clock = state.clock, step_clock(frame, node.clock)
    run(frame, node.body)
    state.clock = outer


def step_clock(frame: Frame, clock: tree.Clock) -> Clock | None:
    """The clock of a slot: steps, one of which is one application of the rule."""
    if clock.count is None or clock.unit != "steps":
        frame.session.report(
            "NL0501", "a clock inside of a rule counts steps", clock.span, "expected `every N steps`"
        )
        return None
    count = whole_number(
        frame.session, evaluate(frame, clock.count), "a clock", clock.count.span, code="NL0501"
    )
    return None if count is POISON else Clock(count, "steps")


HANDLERS["rule", tree.Assign] = _assign
HANDLERS["rule", tree.LevelDecl] = _level
