"""Update rules: one application to one weight `W`, as straight-line code with its slots."""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.catalog.values import Kind, Shape
from nldsl.source import Span
from nldsl.spec.expressions import evaluate
from nldsl.spec.frame import Frame, Namer, assigned_names
from nldsl.spec.items import POISON, Item, Poison, describe, freeze, is_static
from nldsl.spec.loader import Unit
from nldsl.spec.program import Clock, Function, Rule, Slot, Value
from nldsl.spec.session import Session
from nldsl.spec.statements import HANDLERS, assign, run
from nldsl.spec.static import whole_number
from nldsl.syntax import tree


@dataclass(eq=False)
class RuleState:
    """What a rule's frame keeps besides names: its slots and their running values."""

    weight: Value
    slots: dict[str, Slot] = field(default_factory=dict)
    running: dict[str, Value] = field(default_factory=dict)
    inputs: dict[str, Value] = field(default_factory=dict)
    clock: Clock | None = None


def elaborate_rule(
    session: Session,
    definition: tree.Definition,
    unit: Unit,
    bound: dict[str, Item],
    weight: Shape,
    linear: bool,
    span: Span,
    views: dict[str, Value] | None = None,
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
        run(frame, definition.body)
    result = frame.names["W"]
    if not isinstance(result, Value):
        return None
    if result.name == "W":
        session.report(
            "NL0324",
            f"rule `{definition.name.id}` never changes `W`",
            definition.name.span,
            "expected `W = ...`",
        )
        return None
    if result.shape != weight:
        session.report(
            "NL0401",
            f"rule `{definition.name.id}` gives `W` the shape {list(result.shape)}, expected {list(weight)}",
            definition.name.span,
            "changes the shape",
        )
        return None
    outputs = (result, *(state.running[name] for name in state.slots))
    used = {v.name for a in frame.body for v in a.args} | {v.name for v in outputs}
    inputs = tuple(v for v in state.inputs.values() if v.name in used)
    function = Function(definition.name.id, inputs, (), tuple(frame.body), outputs, definition.span)
    arguments = tuple((n, v) for n, v in bound.items() if isinstance(v, Value))
    static = tuple(sorted((n, freeze(v)) for n, v in bound.items() if is_static(v)))
    return Rule(definition.name.id, function, tuple(state.slots.values()), arguments, static)


def _open(
    session: Session,
    definition: tree.Definition,
    unit: Unit,
    bound: dict[str, Item],
    shape: Shape,
    linear: bool,
    span: Span,
    views: dict[str, Value],
) -> tuple[Frame, RuleState]:
    """The frame of a rule: what it may name."""
    assigned = {n: s for n, s in assigned_names(definition.body).items() if n != "W"}
    namer = Namer(assigned)
    kind: Kind = "matrix" if len(shape) == 2 else "vector"
    weight = Value(namer.variable("W"), shape, kind)
    state = RuleState(weight)
    names: dict[str, Item] = {}
    for name, item in bound.items():
        names[name] = item
        if isinstance(item, Value):
            view = views.get(name, item)
            names[name] = state.inputs[name] = Value(namer.variable(name), view.shape, view.kind)
    given = {"W": weight, "g": Value(namer.variable("g"), shape, kind), "step": Value("step", (), "scalar")}
    if linear:
        given["x"] = Value(namer.variable("x"), shape[1:], "vector")
        given["dy"] = Value(namer.variable("dy"), shape[:1], "vector")
    state.inputs = {**given, **state.inputs}
    names = {**given, **names}
    frame = Frame(session, unit, "rule", definition.name.id, names, namer, assigned)
    frame.state = state
    if not linear:
        for name in ("x", "dy"):
            frame.hooks[name] = _missing(session, definition, name, span)
    return frame, state


class _missing:
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


def _state(frame: Frame) -> RuleState:
    state: RuleState = frame.state
    return state


def _assign(frame: Frame, node: tree.Assign) -> None:
    """Assignment to a slot sets its running value; on a slow clock others see the committed one."""
    state, name = _state(frame), node.targets[0].id
    if len(node.targets) > 1 or name not in state.slots:
        assign(frame, node)
        return
    slot = state.slots[name]
    frame.names[name] = state.running[name]
    assign(frame, node)
    result = frame.names[name]
    if isinstance(result, Value) and result.shape == state.weight.shape:
        state.running[name] = result
    elif result is not POISON:
        frame.session.report(
            "NL0401",
            f"`{name}` has the shape {list(state.weight.shape)} of `W`, found {describe(result)}",
            node.value.span,
            describe(result),
        )
    if slot.visible:
        frame.names[name] = state.inputs[slot.visible]


def _memory(frame: Frame, node: tree.MemoryDecl) -> None:
    """`memory m, s = like(W)`: zero at the start."""
    state = _state(frame)
    if not _like(node.map):
        if isinstance(node.map, tree.Call) and frame.unit.find("map", node.map.function.id) is not None:
            _later(frame, "a memory of a rule with a map of its own", node.map.span)
        else:
            frame.session.report(
                "NL0423",
                "a memory of a rule is `like(W)`",
                node.map.span,
                "refused",
                help="`memory m = like(W)`",
            )
        for name in node.names:
            frame.names[name.id] = POISON
        return
    for name in node.names:
        shape, kind = state.weight.shape, state.weight.kind
        running = Value(frame.namer.variable(name.id), shape, kind)
        visible = ""
        frame.names[name.id] = running
        state.running[name.id] = state.inputs[running.name] = running
        if state.clock is not None and state.clock.every > 1:
            seen = Value(frame.namer.temporary(f"{name.id}_visible"), shape, kind)
            visible, state.inputs[seen.name], frame.names[name.id] = seen.name, seen, seen
        state.slots[name.id] = Slot(running.name, "W", state.clock, visible)


def _later(frame: Frame, what: str, span: Span) -> None:
    """Report what the language has and the elaborator does not lower yet."""
    frame.session.report(
        "NL0425", f"{what} is not supported yet", span, "part of the language, not of this version"
    )


def _write(frame: Frame, node: tree.Write) -> None:
    """`m[g] <- e` in a rule."""
    _later(frame, "a write inside of a rule", node.span)
    for name in node.targets:
        frame.names[name.id] = POISON


def every(frame: Frame, node: tree.Every) -> None:
    """`every N steps { ... }` in a rule or a block."""
    _clock(frame, node.clock)
    _later(frame, f"`every` inside of a {frame.place}", node.span)
    for name in assigned_names(node.body):
        frame.names[name] = POISON


def _like(node: tree.Expr) -> bool:
    """`like(W)` or `matrix(like = W)`."""
    if not isinstance(node, tree.Call) or len(node.args) != 1:
        return False
    argument = node.args[0]
    named = (node.function.id, argument.name) in (("like", None), ("matrix", "like"))
    return named and isinstance(argument.value, tree.Name) and argument.value.id == "W"


def _level(frame: Frame, node: tree.LevelDecl) -> None:
    """`level long every N steps { memory ... }`."""
    state = _state(frame)
    outer, state.clock = state.clock, _clock(frame, node.clock)
    run(frame, node.body)
    state.clock = outer


def _clock(frame: Frame, clock: tree.Clock) -> Clock | None:
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
HANDLERS["rule", tree.MemoryDecl] = _memory
HANDLERS["rule", tree.LevelDecl] = _level
HANDLERS["rule", tree.Write] = _write
HANDLERS["block", tree.Every] = every
HANDLERS["rule", tree.Every] = every
