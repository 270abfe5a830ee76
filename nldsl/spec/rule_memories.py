"""Memories of a rule: `like(W)`, or a map of their own that learns from the gradient (Eq. 48-50).

A key that is a matrix holds one key in every row: `m[g]` reads every row of the gradient, and a write
minimises the sum of the objective over the rows (readings P14, P15).
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.catalog.values import Kind, Role
from nldsl.library import PRIMITIVES
from nldsl.source import Span
from nldsl.spec.expressions import HANDLERS as EXPRESSIONS
from nldsl.spec.expressions import value_of
from nldsl.spec.frame import Frame
from nldsl.spec.functions import MapFunction, bind_definition, elaborate_map
from nldsl.spec.items import POISON, Item, MapSource, Poison, describe
from nldsl.spec.primitives import apply
from nldsl.spec.program import Apply, Function, Parameter, Slot, Value
from nldsl.spec.reads import read as read_of_block
from nldsl.spec.rules import RuleState, state_of
from nldsl.spec.statements import HANDLERS
from nldsl.syntax import tree


@dataclass(eq=False)
class Deep:
    """A memory with a map of its own; its weights are slots of the rule, known at the first use."""

    source: MapSource
    span: Span
    map: MapFunction | None = None
    slots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """What a memory answers, with the weights the answer depends on."""

    value: Value
    weights: tuple[Value, ...]
    names: tuple[str, ...]
    """The name of each weight: `W`, or that of a slot."""


# --- declarations --------------------------------------------------------------------------------


def declare(frame: Frame, node: tree.MemoryDecl) -> None:
    """`memory m, s = like(W)` starts at zero, any value in place of `W`; a map at a learned state."""
    state, good = state_of(frame), _plain(frame, node)
    shared = _like(node.map)
    found: object = None
    if not shared and good:
        found = bind_definition(frame, node.map, "map", ("NL0423", "`like(W)`, or a map"), 1)
    for name in node.names:
        if (name.id in state.slots or name.id in state.deep) and not frame.indices:
            frame.session.report(
                "NL0310", f"memory `{name.id}` is declared twice", name.span, "declared again here"
            )
            good = False
        frame.names[name.id] = POISON
        if not good or found is POISON:
            continue
        if shared:
            like = _pattern(frame, node.map)
            if like is not POISON:
                slot(frame, name.id, like.shape, None, like.kind)
        elif isinstance(found, tuple):
            definition, unit, bound = found
            state.deep[name.id] = Deep(
                MapSource("map", definition, unit, tuple(bound.items())), node.map.span
            )


def _plain(frame: Frame, node: tree.MemoryDecl) -> bool:
    """A memory of a rule has no heads and no resets of its own, and `like(W)` starts at zero.

    Errors: NL0423.
    """
    wrong = ""
    if node.per_head is not None or node.reset is not None:
        wrong = "`per head`" if node.per_head is not None else "`reset`"
    elif node.init is not None and node.init.kind != ("zero" if _like(node.map) else "learned"):
        wrong = "this `init`"
    if (
        isinstance(node.map, tree.Call)
        and node.map.function.id in ("matrix", "softmax")
        and not _like(node.map)
    ):
        wrong = f"`{node.map.function.id}` without `like = W`"
    if wrong:
        frame.session.report(
            "NL0423", f"{wrong} has no meaning in a rule", node.span, "refused", help="`memory m = like(W)`"
        )
    return not wrong


def _like(node: tree.Expr) -> bool:
    """`like(W)`, of any value; or `matrix(like = W)`."""
    if not isinstance(node, tree.Call) or len(node.args) != 1:
        return False
    argument = node.args[0]
    if (node.function.id, argument.name) == ("like", None):
        return True
    named = (node.function.id, argument.name) == ("matrix", "like")
    return named and isinstance(argument.value, tree.Name) and argument.value.id == "W"


def _pattern(frame: Frame, node: tree.Expr) -> Value | Poison:
    """The value whose shape a memory takes; `like(sum(W))` has one number per row of a matrix."""
    assert isinstance(node, tree.Call)
    if node.function.id == "matrix":
        return state_of(frame).weight
    return value_of(frame, node.args[0].value)


def slot(
    frame: Frame, name: str, shape: tuple[int, ...], initial: Parameter | None, like: Kind | None = None
) -> Value:
    """A new slot called `name`; on a clock of several steps others see what it held at the last tick."""
    state = state_of(frame)
    _copy_aside(state, name)
    kind: Kind = like or ("matrix" if len(shape) == 2 else "vector")
    running = Value(frame.namer.variable(name), shape, kind)
    visible = ""
    frame.names[name] = running
    state.running[name] = state.inputs[running.name] = running
    if state.clock is not None and state.clock.every > 1:
        seen = Value(frame.namer.temporary(f"{name}_visible"), shape, kind)
        visible, state.inputs[seen.name], frame.names[name] = seen.name, seen, seen
    own = shape if initial is not None or shape != state.inputs["W"].shape else None
    state.slots[name] = Slot(running.name, "W", state.clock, visible, own, initial)
    return running


def _copy_aside(state: RuleState, name: str) -> None:
    """A memory that a `for` declares again is another one: the one before stays under a name of its own."""
    if name in state.slots:
        before = f"{name} {len(state.slots)}"
        state.slots[before], state.running[before] = state.slots.pop(name), state.running.pop(name)


def _open(frame: Frame, name: str, size: int) -> Deep | None:
    """The map of a deep memory at its first use, its weights as slots."""
    deep: Deep = state_of(frame).deep[name]
    if deep.map is not None:
        known = deep.map.function.inputs[0].shape[0]
        if known == size:
            return deep
        frame.session.report(
            "NL0401", f"the keys of `{name}` have {known} channels, found {size}", deep.span, "here"
        )
        return None
    found = elaborate_map(frame.session, deep.source, size, name, deep.span)
    if found is None:
        return None
    if found.slow:
        frame.session.report(
            "NL0425",
            f"the map of `{name}` has slow parameters, which a memory of a rule cannot hold yet",
            deep.span,
            f"`{found.slow[0].path}`",
        )
        return None
    deep.map = found
    names = []
    for weight in found.weights:
        role: Role = "matrix" if len(weight.value.shape) == 2 else "rest"
        key = f"{name}_{weight.value.name}"
        start = Parameter(f"{name}.{weight.value.name}", weight.value.shape, weight.init, role, weight.span)
        slot(frame, key, weight.value.shape, start)
        names.append(key)
    deep.slots = tuple(names)
    return deep


# --- reads ---------------------------------------------------------------------------------------


def read(frame: Frame, node: tree.Index, target: str | None) -> Item:
    """`m[g]` in a rule; elsewhere the read of a memory of a block."""
    name = node.target.id
    if frame.place != "rule" or not is_memory(frame, name):
        return read_of_block(frame, node, target)
    key = value_of(frame, node.key)
    found = POISON if key is POISON else predict(frame, name, key, node.span)
    return POISON if found is POISON else found.value


def is_memory(frame: Frame, name: str) -> bool:
    state = state_of(frame)
    return name == "W" or name in state.slots or name in state.deep


def predict(frame: Frame, name: str, key: Value, span: Span) -> Prediction | Poison:
    """What the memory `name` answers to `key`, every row on its own if `key` is a matrix."""
    if key.kind not in ("vector", "matrix"):
        return frame.session.report(
            "NL0401", f"the key of `{name}` must be a vector or a matrix, found {describe(key)}", span
        )
    if name not in state_of(frame).deep:
        weight = frame.names.get(name) if name == "W" else state_of(frame).running[name]
        if not isinstance(weight, Value):
            return POISON
        function = _matrix(weight)
        return _answer(frame, function, key, (weight,), (name,), span)
    deep = _open(frame, name, key.shape[-1])
    if deep is None or deep.map is None:
        return POISON
    weights = tuple(state_of(frame).running[s] for s in deep.slots)
    return _answer(frame, deep.map.function, key, weights, deep.slots, span)


def _matrix(weight: Value) -> Function:
    """The map of a weight that is used as it stands: W @ z."""
    z, fast = Value("z", weight.shape[1:], "vector"), Value("weight", weight.shape, "matrix")
    y = Value("y", weight.shape[:1], "vector")
    return Function("matrix", (z,), (fast,), (Apply(y, "matmul", (fast, z)),), (y,))


def _answer(
    frame: Frame,
    function: Function,
    key: Value,
    weights: tuple[Value, ...],
    names: tuple[str, ...],
    span: Span,
) -> Prediction | Poison:
    """The map applied to one key, or to the rows of a matrix as columns."""
    rows = key.kind == "matrix"
    z: Value | Poison = apply(frame, "transpose", (key,), {}, span, derived=True) if rows else key
    if z is POISON:
        return POISON
    env = {function.inputs[0].name: z, **{w.name: v for w, v in zip(function.weights, weights, strict=True)}}
    out = run_function(frame, function, env, rows, span)
    if rows and out is not POISON:
        out = apply(frame, "transpose", (out,), {}, span, derived=True)
    return POISON if out is POISON else Prediction(out, weights, names)


def run_function(
    frame: Frame, function: Function, env: dict[str, Value], rows: bool, span: Span
) -> Value | Poison:
    """The body of a map or an objective as statements of the rule."""
    for step in function.body:
        if rows and not (PRIMITIVES[step.op].elementwise or step.op in ("matmul", "constant")):
            return frame.session.report(
                "NL0425",
                f"`{step.op}` of map `{function.name}` cannot act on the rows of a matrix yet",
                span,
                "the key is a matrix",
            )
        if step.op == "constant":
            env[step.out.name] = frame.constant(dict(step.options)["value"], span)  # type: ignore[arg-type]
            continue
        args = [env[a.name] for a in step.args]
        out = apply(frame, step.op, args, dict(step.options), span, derived=True)
        if out is POISON:
            return POISON
        env[step.out.name] = out
    return env[function.outputs[0].name]


HANDLERS["rule", tree.MemoryDecl] = declare
EXPRESSIONS[tree.Index] = read
