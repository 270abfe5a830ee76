"""The plan of a rule for one weight: what is a number, what is a tensor, what may wait for its clock.

Everything that depends on the step and the arguments alone is a *number* and is computed once per step.
The rest is one straight function of tensors: `elementwise` if no element sees another, else `matrix`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nldsl.catalog.values import Shape
from nldsl.library import PRIMITIVES
from nldsl.plan.rule_factors import ONE, factored
from nldsl.plan.rule_fold import constants, folded
from nldsl.plan.rule_guards import Step, arranged
from nldsl.spec.program import Apply, Parameter, Rule, Slot, Value

HELD = frozenset({"orthogonalize", "rownorm", "transpose", "neg", "sign", "abs", "tanh", "inverse_root"})
"""Functions that give zero for zero: of a memory on a slow clock, their value can be kept instead of it."""


@dataclass(frozen=True)
class RuleMemory:
    """One memory of a rule: `shape` is `None` for that of the weight; `after` is its new value."""

    name: str
    shape: Shape | None
    initial: Parameter | None
    before: Value
    after: Value


@dataclass(frozen=True)
class RulePlan:
    """How one application of a rule to one weight is computed.

    `arguments` are the open numbers: what people call them and the values they are.  `scalars` are the
    numbers, in order, `passed` those the tensors need; `body` are the tensors; constants stand in `literals`
    by the name of their value.
    """

    rule: Rule
    shape: Shape
    form: Literal["elementwise", "matrix"]
    reason: str
    arguments: tuple[tuple[str, Value], ...]
    scalars: tuple[Apply, ...]
    passed: tuple[Value, ...]
    body: tuple[Step, ...]
    weight: Value
    memories: tuple[RuleMemory, ...]
    literals: tuple[tuple[str, float], ...]
    held: tuple[str, ...] = ()
    averaged: frozenset[str] = frozenset()
    """Of a rule that is applied row by row: the new weight and memories, which are means over rows."""


@dataclass(frozen=True)
class _Code:
    """A rule's body and memories while they are rewritten."""

    body: tuple[Apply, ...]
    memories: tuple[RuleMemory, ...]
    held: tuple[str, ...] = ()


def plan_rule(rule: Rule, shape: Shape, by_rows: str = "") -> RulePlan:
    """The plan of `rule` for a weight of `shape`.

    A rule that asks for `x` or `dy` is applied to every row of a layer; `by_rows` says why.
    """
    function = rule.function
    plain = folded(function.body)
    literals = {**plain.literals, ONE: 1}
    outputs = [plain.same.get(v.name, v) for v in function.outputs]
    code = _with_clocks(rule, _Code(plain.body, _memories(rule, outputs[1:])))
    arguments = tuple((spoken.name, Value(name, (), "scalar")) for name, spoken in rule.arguments)
    known = {"step", *(name for name, _ in rule.arguments), *literals}
    weight = outputs[0]
    outputs = [weight, *(m.after for m in code.memories)]
    live = _live(code.body, outputs)
    scalars = tuple(_numbers(live, known))
    numbers = known | {a.out.name for a in scalars}
    tensors = tuple(a for a in live if a.out.name not in numbers)
    if not by_rows:
        tensors, more = factored(tensors, numbers, outputs)
        numbers |= {a.out.name for a in more}
        more, literals = constants(more, literals)
        scalars = (*scalars, *more)
        tensors = _live(tensors, outputs)
    used = {v.name: v for a in tensors for v in a.args} | {v.name: v for v in outputs}
    passed = tuple(v for n, v in used.items() if n in numbers and n not in literals)
    needed = _live(scalars, passed)
    form, reason = _form(tensors, code.memories, shape, by_rows)
    steps: tuple[Step, ...] = tensors
    if form == "matrix" and not by_rows:
        steps = arranged(tensors, numbers, outputs, shape)
    own = {s.name for s in rule.slots}
    averaged = {weight.name, *(m.after.name for m in code.memories if m.name in own)} if by_rows else ()
    return RulePlan(
        rule, shape, form, reason, arguments, needed, passed, steps, weight, code.memories,
        tuple(literals.items()), code.held, frozenset(averaged),
    )  # fmt: skip


def _memories(rule: Rule, outs: Sequence[Value]) -> tuple[RuleMemory, ...]:
    return tuple(
        RuleMemory(s.name, s.shape, s.initial, Value(s.name, out.shape, out.kind), out)
        for s, out in zip(rule.slots, outs, strict=True)
    )


def _numbers(body: Iterable[Apply], known: set[str]) -> Iterable[Apply]:
    """The statements that depend on the step and the arguments alone."""
    numbers = set(known)
    for step in body:
        scalar = not step.out.shape and (PRIMITIVES[step.op].elementwise or step.op == "multiple_of")
        if scalar and all(a.name in numbers for a in step.args):
            numbers.add(step.out.name)
            yield step


def _live(body: Sequence[Apply], outputs: Iterable[Value]) -> tuple[Apply, ...]:
    """The statements that `outputs` depend on."""
    needed = {v.name for v in outputs}
    kept = []
    for step in reversed(body):
        if step.out.name in needed:
            needed |= {a.name for a in step.args}
            kept.append(step)
    return tuple(reversed(kept))


def _form(
    body: Iterable[Apply], memories: Iterable[RuleMemory], shape: Shape, by_rows: str
) -> tuple[Literal["elementwise", "matrix"], str]:
    """Whether every element goes its own way, and what says it does not."""
    if by_rows:
        return "matrix", by_rows
    for memory in memories:
        if memory.shape not in (None, (), shape):
            return "matrix", f"the memory `{memory.name}` is {list(memory.shape or ())}"
    for step in body:
        if not PRIMITIVES[step.op].elementwise or step.out.shape not in ((), shape):
            return "matrix", f"`{step.op}` looks at more than one element"
    return "elementwise", "no element sees another"


def _with_clocks(rule: Rule, code: _Code) -> _Code:
    """Memories on a clock of several steps: what others see of them is a memory too."""
    for slot in rule.slots:
        if slot.visible and slot.clock is not None:
            code = _committed(rule, slot, code)
    return code


def _committed(rule: Rule, slot: Slot, code: _Code) -> _Code:
    """One such memory; where only a costly function of it is used, the value of that is kept instead."""
    running = next(m for m in code.memories if m.name == slot.name)
    seen = next((v for v in rule.function.inputs if v.name == slot.visible), None)
    if seen is None:
        return code
    chain = _chain(code.body, seen)
    held = chain[-1].out if chain else seen
    body = tuple(a for a in code.body if a not in chain)
    source, renewed = running.after, list[Apply]()
    for step in chain:
        fresh = replace(step.out, name=f"{step.out.name}_new")
        renewed.append(replace(step, out=fresh, args=(source,)))
        source = fresh
    assert slot.clock is not None
    fires = Value(f"{slot.name}_fires", (), "scalar")
    step_value = Value("step", (), "scalar")
    after = replace(held, name=f"{held.name}_next")
    body = (
        *body,
        Apply(fires, "multiple_of", (step_value,), (("of", slot.clock.every),)),
        *renewed,
        Apply(after, "where", (fires, source, held)),
    )
    own = None if held.shape == rule.function.outputs[0].shape else held.shape
    memory = RuleMemory(held.name, own, None, held, after)
    return replace(
        code, body=body, memories=(*code.memories, memory), held=(*code.held, *([held.name] if chain else []))
    )


def _chain(body: Sequence[Apply], seen: Value) -> list[Apply]:
    """Functions of the visible memory alone, applied one after the other, that are worth keeping."""
    chain: list[Apply] = []
    value = seen
    while True:
        users = [a for a in body if value in a.args]
        if len(users) != 1 or users[0].op not in HELD or users[0].args != (value,):
            break
        chain.append(users[0])
        value = users[0].out
    return chain if any(not PRIMITIVES[a.op].elementwise for a in chain) else []
