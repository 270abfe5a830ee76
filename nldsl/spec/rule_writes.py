"""Writes of a rule to its memories: one step of an inner rule on an objective of its own (Eq. 48-50, 57)."""

from __future__ import annotations

from nldsl.source import Span
from nldsl.spec.derivatives import gradients
from nldsl.spec.expressions import lookup, value_of
from nldsl.spec.frame import Frame
from nldsl.spec.functions import bind_definition, elaborate_objective
from nldsl.spec.inner_rules import inline
from nldsl.spec.items import POISON, Poison, RuleItem, describe, is_static
from nldsl.spec.primitives import apply
from nldsl.spec.program import Value
from nldsl.spec.rule_memories import Prediction, is_memory, predict, run_function
from nldsl.spec.rules import state_of
from nldsl.spec.statements import HANDLERS
from nldsl.syntax import tree

_WITHOUT = ("over", "weighted", "toward", "gradient_every")


def write(frame: Frame, node: tree.Write) -> None:
    """`m[g] <- e minimize L by rule(...) retain a`, of a memory of the rule or of `W` itself (Eq. 57)."""
    name = node.targets[0].id
    if node.each or len(node.targets) > 1 or len(node.terms) != 1 or not is_memory(frame, name):
        unknown = not is_memory(frame, name)
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
    predicted = predict(frame, name, key, term.span)
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
    loss = run_function(frame, function, given, False, span)
    return apply(frame, "sum", (loss,), {}, span) if loss is not POISON and loss.shape else loss


def _rule(frame: Frame, node: tree.Expr) -> RuleItem | None:
    found = bind_definition(frame, node, "rule", ("NL0305", "a rule such as `gd(lr = 0.1)`"), 0)
    if found is POISON:
        return None
    definition, unit, bound = found
    return RuleItem(definition, unit, tuple(bound.items()))


HANDLERS["rule", tree.Write] = write
