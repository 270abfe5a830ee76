"""One application of a rule to one weight, and what a write makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.calculus.rules import rule_form
from nldsl.catalog import Operand
from nldsl.catalog.values import Shape
from nldsl.emit.nodes import Expression, Like, Literal, assign, call, name
from nldsl.library import PRIMITIVES, torch_function
from nldsl.lowerings.blocks import BlockCode
from nldsl.lowerings.scope import Scope
from nldsl.lowerings.slots import SlotPlace
from nldsl.spec.program import Rule, Write


def apply_rule(
    code: BlockCode,
    scope: Scope,
    rule: Rule,
    known: dict[str, Expression],
    places: Sequence[SlotPlace],
    slots: dict[str, Expression],
    steps: Expression,
    label: tuple[str, str],
) -> Expression:
    """The rule's new weight; `slots` (the present value of every slot, by key) move on.

    `known`: what the rule may ask for; `steps [B]`: how often it had run before; `label`: names of
    the memory and the weight.
    """
    known = {**known, **{p.name: slots[p.key] for p in places}}
    result = call(code.functions.rule(rule), *(known[v.name] for v in rule.function.inputs))
    if not places:
        return result
    stepped = scope.names.fresh(f"{label[0]}_{label[1]}_step")
    returned = [p for p in places if not p.twin_of]
    fresh = [scope.names.fresh(f"{label[0]}_{p.key}_next") for p in returned]
    scope.add(assign([stepped, *fresh], result))
    slots |= {p.key: name(n) for p, n in zip(returned, fresh, strict=True)}
    for twin in (p for p in places if p.twin_of):
        # What others see of a slot on a slow clock moves behind every N-th step.
        chosen = scope.names.fresh(f"{label[0]}_{twin.key}_next")
        commit = code.runtime("token", "commit")
        moved = call(commit, steps + 1, twin.every, None, slots[twin.twin_of], slots[twin.key])
        scope.add(assign(chosen, moved))
        slots[twin.key] = name(chosen)
    return name(stepped)


def adds_only(rule: Rule, shape: Shape) -> bool:
    """Whether what a rule adds to a weight does not depend on the weight."""
    form = rule_form(rule, shape).form
    return form is not None and form.adds_only


def combine(
    write: Write,
    gate: Expression | None,
    steps: list[Expression],
    given: Expression,
    toward: Expression | None,
) -> Expression:
    """`r + a D + sum of (step - D)` for `D = W - r`, projected."""
    total = steps[0]
    for step in steps[1:]:
        total = total + step
    repeats = len(steps) - 1
    if gate is not None:
        total = total + (gate - float(repeats + 1)) * given
    elif repeats:
        total = total - float(repeats) * given
    return total if toward is None else total + toward


def projected(scope: Scope, write: Write, weight: Expression) -> Expression:
    """The weight after `project`."""
    if write.project is None:
        return weight
    target = torch_function(write.project, [Operand((1, 1), "matrix")])
    options: dict[str, Like] = {
        o.name: Literal(o.default)  # type: ignore[arg-type]
        for o in PRIMITIVES[write.project].options
        if o.runtime
    }
    return scope.imports.use(target)(weight, **options)
