"""One application of a rule to one weight as an emitted function that changes its arguments in place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nldsl.emit.nodes import (
    Assign,
    Evaluate,
    Expression,
    FunctionDef,
    If,
    Like,
    Parameter,
    Statement,
    Var,
    assign,
    call,
    compare,
    name,
    returns,
    to_expression,
)
from nldsl.library import PRIMITIVES, torch_function
from nldsl.lowerings.apply import INFIX
from nldsl.lowerings.layout import operand
from nldsl.lowerings.prune import reads, size, substitute
from nldsl.lowerings.scope import Imports, Names
from nldsl.plan.rule_guards import Guard, Step
from nldsl.plan.rules import RulePlan
from nldsl.spec.program import Apply, Value, option

VIEWS = frozenset({"transpose", "expand_last", "parts", "split", "merge"})
"""Results that may share memory with their operand."""
IN_TRAINING = {"orthogonalize": "nldsl.runtime.newton_schulz:orthogonalize"}
"""Functions that have a form of their own for weights in training."""


@dataclass
class Tensors:
    """Writes statements on plain tensors: a scalar is 0-d, so broadcasting is torch's own."""

    imports: Imports
    names: Names
    literals: Mapping[str, float]
    like: Expression
    kept: frozenset[str] = frozenset()
    """Values that something behind the statements needs under their own name."""

    def ref(self, value: Value) -> Expression:
        """A value computed before, or a literal."""
        if value.name in self.literals:
            return to_expression(self.literals[value.name])
        return name(self.names.of(value))

    def steps(self, body: Iterable[Step]) -> list[Statement]:
        """One assignment per statement; a guard is an `if`."""
        out: list[Statement] = []
        temporaries: set[str] = set()
        for step in body:
            if isinstance(step, Guard):
                out.append(self._guard(step))
                continue
            target = self.names.of(step.out)
            if re.search(rf"_{step.op}(_\d+)?$", step.out.name) and step.out.name not in self.kept:
                temporaries.add(target)
            out.append(assign(target, self.expression(step)))
        return gathered(out, temporaries)

    def _guard(self, guard: Guard) -> Statement:
        target = self.names.of(guard.out)
        then = (*self.steps(guard.then), assign(target, self._side(guard, guard.yes)))
        otherwise = (*self.steps(guard.otherwise), assign(target, self._side(guard, guard.no)))
        return If(self.ref(guard.condition), then, otherwise)

    def _side(self, guard: Guard, value: Value) -> Expression:
        """What a guard chooses; a number in place of a tensor is one like the weight."""
        if value.shape == guard.out.shape:
            return self.ref(value)
        if value.name in self.literals:
            return call("torch.full_like", self.like, self.ref(value))
        return self.ref(value).method("expand_as", self.like)

    def expression(self, step: Apply) -> Expression:
        """The right-hand side of one statement."""
        if step.op == "identity":
            size = option(step.options, "size")
            assert isinstance(size, int)
            return self.imports.use("nldsl.runtime.ops:identity")(size=size, like=self.like)
        if step.op == "expand_last" and step.args[0].name in self.literals:
            return call("torch.full_like", self.ref(step.args[1]), self.ref(step.args[0]))
        args = [self.ref(a) for a in step.args]
        target = IN_TRAINING.get(step.op) or torch_function(step.op, [operand(a) for a in step.args])
        if target == "operator:neg":
            return -args[0]
        if target in INFIX:
            return compare(INFIX[target], args[0], args[1])  # type: ignore[arg-type]
        options = dict(step.options)
        keywords: dict[str, Like] = {
            o.name: options[o.name] for o in PRIMITIVES[step.op].options if o.runtime and o.name in options
        }
        if "index" in options:
            keywords["index"] = options["index"]
        return self.imports.use(target)(*args, **keywords)


def gathered(body: list[Statement], temporaries: Collection[str], width: int = 40) -> list[Statement]:
    """Put a temporary that is used once where it is used: nothing is overwritten before the end."""
    out = list(body)
    for i in reversed(range(len(out))):
        step = out[i]
        target = step.targets[0] if isinstance(step, Assign) else None
        if not isinstance(step, Assign) or not isinstance(target, Var) or target.name not in temporaries:
            continue
        users = [j for j in range(i + 1, len(out)) for v in reads(out[j]) if v == target.name]
        if len(users) != 1:
            continue
        user = out[users[0]]
        if isinstance(user, Assign) and size(step.value) + size(user.value) <= width:
            out[users[0]] = substitute(user, target.name, step.value)
            del out[i]
    return out


def numbers_function(plan: RulePlan, imports: Imports, taken: frozenset[str]) -> FunctionDef:
    """`numbers(step, *arguments)`: what depends on the step and the arguments alone, in double precision."""
    passed = frozenset(v.name for v in plan.passed)
    writer = Tensors(imports, Names(taken), dict(plan.literals), name("step"), passed)
    parameters = [writer.names.of("step"), *(writer.names.of(v) for _, v in plan.arguments)]
    body = writer.steps(plan.scalars)
    results = tuple(writer.ref(v) for v in plan.passed)
    annotated = tuple(Parameter(p, name("Tensor")) for p in parameters)
    many = name("tuple")[name("Tensor"), ...]
    doc = f"The numbers of `{plan.rule.name}` at one step, in double precision."
    return FunctionDef("numbers", annotated, (*body, returns(to_expression(results))), doc, many)


def update_function(plan: RulePlan, imports: Imports, taken: frozenset[str]) -> FunctionDef:
    """`update(W, g, *memories, *numbers)`: the new weight and memories, written over the old ones."""
    names = Names(taken)
    first = [names.of("W"), names.of("g"), *(names.of(m.before) for m in plan.memories)]
    numbers = [names.of(v) for v in plan.passed]
    writer = Tensors(imports, names, dict(plan.literals), name(first[0]), _kept(plan))
    body = writer.steps(plan.body)
    pairs = [("W", plan.weight), *((m.before.name, m.after) for m in plan.memories)]
    body += written(writer, plan.body, pairs)
    doc = f"One step of `{plan.rule.name}` for one weight, in place; {plan.reason}."
    annotated = tuple(Parameter(p, name("Tensor")) for p in (*first, *numbers))
    return FunctionDef("update", annotated, tuple(body), doc, to_expression(None))


def _kept(plan: RulePlan) -> frozenset[str]:
    """The results of the rule and of both sides of its guards."""
    names = {plan.weight.name, *(m.after.name for m in plan.memories)}
    guards = [s for s in plan.body if isinstance(s, Guard)]
    while guards:
        guard = guards.pop()
        names |= {guard.yes.name, guard.no.name, guard.condition.name}
        guards += [s for s in (*guard.then, *guard.otherwise) if isinstance(s, Guard)]
    return frozenset(names)


def written(writer: Tensors, body: Sequence[Step], written: Sequence[tuple[str, Value]]) -> list[Statement]:
    """`W.copy_(...)` for everything that changed; what shares memory with a target is copied out first."""
    targets = {target for target, _ in written}
    before: list[Statement] = []
    after: list[Statement] = []
    for target, value in written:
        if value.name == target:
            continue
        source = writer.ref(value)
        if _shared(value, body) & targets:
            kept = writer.names.fresh(f"{target}_kept")
            before.append(assign(kept, source.method("clone")))
            source = name(kept)
        after.append(Evaluate(name(writer.names.of(target)).method("copy_", source)))
    return before + after


def _shared(value: Value, body: Sequence[Step]) -> set[str]:
    """The inputs that a value may be a view of; keeping the target shares nothing new."""
    made = {s.out.name: s for s in body}
    step = made.get(value.name)
    if step is None:
        return {value.name}
    if isinstance(step, Guard):
        inside = (*body, *step.then, *step.otherwise)
        return _shared(step.yes, inside) | (_shared(step.no, inside) if step.no.name in made else set())
    return _shared(step.args[0], body) if step.op in VIEWS else set()
