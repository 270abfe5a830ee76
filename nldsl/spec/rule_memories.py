"""Memories of a rule: `like(W)`, or a map of their own that learns from the gradient (Eq. 48-50).

A key that is a matrix holds one key in every row: `m[g]` reads every row of the gradient, and a write
minimises the sum of the objective over the rows (readings P14, P15).
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.catalog.values import Role
from nldsl.library import PRIMITIVES
from nldsl.source import Span
from nldsl.spec.derivatives import gradients
from nldsl.spec.expressions import HANDLERS as EXPRESSIONS
from nldsl.spec.expressions import lookup, value_of
from nldsl.spec.frame import Frame
from nldsl.spec.functions import MapFunction, bind_definition, elaborate_map, elaborate_objective
from nldsl.spec.inner_rules import inline
from nldsl.spec.items import POISON, Item, MapSource, Poison, RuleItem, describe, is_static
from nldsl.spec.primitives import apply
from nldsl.spec.program import Apply, Function, Parameter, Slot, Value
from nldsl.spec.reads import read as read_of_block
from nldsl.spec.rules import state_of
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
    """`memory m, s = like(W)` starts at zero; `memory m = residual_mlp()` at a learned state."""
    state, good = state_of(frame), _plain(frame, node)
    shared = _like(node.map)
    found: object = None
    if not shared and good:
        found = bind_definition(frame, node.map, "map", ("NL0423", "`like(W)`, or a map"), 1)
    for name in node.names:
        frame.names[name.id] = POISON
        if not good or found is POISON:
            continue
        if shared:
            slot(frame, name.id, state.weight.shape, None)
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
    """`like(W)` or `matrix(like = W)`."""
    if not isinstance(node, tree.Call) or len(node.args) != 1:
        return False
    argument = node.args[0]
    named = (node.function.id, argument.name) in (("like", None), ("matrix", "like"))
    return named and isinstance(argument.value, tree.Name) and argument.value.id == "W"


def slot(frame: Frame, name: str, shape: tuple[int, ...], initial: Parameter | None) -> Value:
    """A new slot called `name`; on a clock of several steps others see what it held at the last tick."""
    state = state_of(frame)
    kind = state.weight.kind if initial is None else ("matrix" if len(shape) == 2 else "vector")
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
    if frame.place != "rule" or not _is_memory(frame, name):
        return read_of_block(frame, node, target)
    key = value_of(frame, node.key)
    found = POISON if key is POISON else _predict(frame, name, key, node.span)
    return POISON if found is POISON else found.value


def _is_memory(frame: Frame, name: str) -> bool:
    state = state_of(frame)
    return name == "W" or name in state.slots or name in state.deep


def _predict(frame: Frame, name: str, key: Value, span: Span) -> Prediction | Poison:
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
    out = _run(frame, function, env, rows, span)
    if rows and out is not POISON:
        out = apply(frame, "transpose", (out,), {}, span, derived=True)
    return POISON if out is POISON else Prediction(out, weights, names)


def _run(frame: Frame, function: Function, env: dict[str, Value], rows: bool, span: Span) -> Value | Poison:
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


# --- writes --------------------------------------------------------------------------------------

_WITHOUT = ("over", "weighted", "toward", "gradient_every")


def write(frame: Frame, node: tree.Write) -> None:
    """`m[g] <- e minimize L by rule(...) retain a`, of a memory of the rule or of `W` itself (Eq. 57)."""
    name = node.targets[0].id
    if node.each or len(node.targets) > 1 or len(node.terms) != 1 or not _is_memory(frame, name):
        unknown = not _is_memory(frame, name)
        frame.session.report(
            "NL0321" if unknown else "NL0313",
            f"unknown memory `{name}`" if unknown else "a write in a rule has one target and one term",
            node.targets[0].span if unknown else node.span,
            "no memory of this rule" if unknown else "not in a rule",
            help="declare it: `memory m = like(W)`" if unknown else "write one statement per term",
        )
        return
    frame.variable = f"{name}_write"
    term = node.terms[0]
    clauses = {f: getattr(term.clauses, f) or getattr(node.clauses, f) for f in _CLAUSES}
    if any(clauses[f] for f in (*_WITHOUT, "at_commit")):
        wrong = next(f for f in (*_WITHOUT, "at_commit") if clauses[f])
        frame.session.report(
            "NL0421", f"`{wrong.replace('_', ' ')}` has no meaning in a rule", node.span, "remove it"
        )
        return
    if clauses["by"] is None:
        frame.session.report(
            "NL0308", "a write needs a rule", term.span, "no `by`", help="add `by gd(lr = lr)`"
        )
        return
    after = _step(frame, name, term, clauses)
    if after is None:
        return
    for memory, value in after.items():
        if memory == "W":
            frame.names["W"] = value
            continue
        state_of(frame).running[memory] = value
        if not state_of(frame).slots[memory].visible:
            frame.names[memory] = value


_CLAUSES = ("minimize", "by", "retain", "project", "at_commit", *_WITHOUT)


def _step(frame: Frame, name: str, term: tree.Term, clauses: dict[str, tree.Expr]) -> dict[str, Value] | None:
    """Every weight of the memory after the write."""
    key = value_of(frame, term.key)
    if key is POISON:
        return None
    start = len(frame.body)
    predicted = _predict(frame, name, key, term.span)
    if predicted is POISON:
        return None
    target = _target(frame, term.value, predicted.value)
    loss = (
        POISON if target is POISON else _objective(frame, clauses["minimize"], predicted, target, term.span)
    )
    if loss is POISON:
        return None
    wanted = [*predicted.weights, predicted.value]
    *slopes, dy = gradients(frame, start, loss, wanted, term.span)
    rule = _rule(frame, clauses["by"])
    retain = None if clauses["retain"] is None else value_of(frame, clauses["retain"])
    if rule is None or retain is POISON or dy is POISON:
        return None
    after: dict[str, Value] = {}
    for memory, weight, slope in zip(predicted.names, predicted.weights, slopes, strict=True):
        if slope is POISON:
            return None
        given = {"g": slope}
        if key.kind == "vector" and predicted.weights == (weight,) and name not in state_of(frame).deep:
            given |= {"x": key, "dy": dy}
        new = _kept(frame, inline(frame, rule, weight, given, term.span), weight, retain, clauses, term.span)
        if new is POISON:
            return None
        after[memory] = new
    return after


def _kept(
    frame: Frame,
    stepped: Value | Poison,
    weight: Value,
    retain: Value | None,
    clauses: dict[str, tree.Expr],
    span: Span,
) -> Value | Poison:
    """`a W + (rule(W) - W)`, projected."""
    if stepped is POISON:
        return POISON
    new: Value | Poison = stepped
    if retain is not None:
        if retain.kind != "scalar":
            return frame.session.report(
                "NL0418", f"`retain` of a rule's memory takes a number, found {describe(retain)}", span
            )
        delta = apply(frame, "sub", (stepped, weight), {}, span)
        kept = apply(frame, "mul", (retain, weight), {}, span)
        new = POISON if delta is POISON or kept is POISON else apply(frame, "add", (kept, delta), {}, span)
    project = clauses["project"]
    if project is None or new is POISON:
        return new
    if not isinstance(project, tree.Name) or project.id not in ("rownorm", "orthogonalize"):
        return frame.session.report(
            "NL0421", "`project` takes the name of a projection", project.span, "unknown projection"
        )
    return apply(frame, project.id, (new,), {}, span)


def _target(frame: Frame, node: tree.Expr, predicted: Value) -> Value | Poison:
    """The target; `identity` in it has the size of the prediction.

    Errors: NL0401 if it is neither a number nor of the prediction's shape.
    """
    square = predicted.kind == "matrix" and predicted.shape[0] == predicted.shape[1]
    free = lookup(frame, "identity") is None and "identity" not in frame.assigned
    if square and free:
        made = apply(frame, "identity", (), {"size": predicted.shape[0]}, node.span)
        frame.names["identity"] = made
    target = value_of(frame, node)
    if square and free:
        frame.names.pop("identity", None)
    if target is POISON or not target.shape or target.shape == predicted.shape:
        return target
    return frame.session.report(
        "NL0401", f"the target must be {describe(predicted)} or a number, found {describe(target)}", node.span
    )


def _objective(
    frame: Frame, node: tree.Expr | None, predicted: Prediction, target: Value, span: Span
) -> Value | Poison:
    """The objective of every key, summed."""
    named = node or tree.Name(span=span, id="l2")
    found = bind_definition(frame, named, "objective", ("NL0304", "an objective such as `l2`"), 2)
    if found is POISON:
        return POISON
    definition, unit, bound = found
    if not all(is_static(i) for i in bound.values()):
        return frame.session.report(
            "NL0403", "an option of an objective must be known when the program is compiled", named.span
        )
    value, weights = predicted.value, predicted.weights
    shape = weights[0].shape if len(weights) == 1 and value.kind == "vector" else None
    function = elaborate_objective(
        frame.session, definition, unit, bound, (value.shape[-1], shape), named.span
    )
    if function is None:
        return POISON
    given = dict(zip((v.name for v in function.inputs), (value, target, *weights), strict=False))
    loss = _run(frame, function, given, False, span)
    return apply(frame, "sum", (loss,), {}, span) if loss is not POISON and loss.shape else loss


def _rule(frame: Frame, node: tree.Expr) -> RuleItem | None:
    found = bind_definition(frame, node, "rule", ("NL0305", "a rule such as `gd(lr = 0.1)`"), 0)
    if found is POISON:
        return None
    definition, unit, bound = found
    return RuleItem(definition, unit, tuple(bound.items()))


HANDLERS["rule", tree.MemoryDecl] = declare
HANDLERS["rule", tree.Write] = write
EXPRESSIONS[tree.Index] = read
