"""From the plans of a rule to the emitted file of an optimizer: its kernels and its class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nldsl.catalog.values import Shape, Static
from nldsl.emit.imports import import_block
from nldsl.emit.nodes import (
    ClassDef,
    DictOf,
    Expression,
    FunctionDef,
    Like,
    Module,
    Statement,
    assign,
    call,
    name,
    to_expression,
)
from nldsl.lowerings.optimizer_rows import by_rows_function, rows_function
from nldsl.lowerings.optimizer_step import numbers_function, update_function
from nldsl.lowerings.scope import RESERVED, Imports, Names
from nldsl.plan.rule_rows import RowsPlan
from nldsl.plan.rules import RuleMemory, RulePlan

OWN = frozenset({"Kernel", "Memory", "RuleOptimizer", "step"})


@dataclass(frozen=True)
class OptimizerText:
    """What the emitted class says about its rule."""

    name: str
    doc: str
    arguments: tuple[tuple[str, float], ...]
    fixed: tuple[tuple[str, Static], ...]


@dataclass
class Kernels:
    """Functions and kernels emitted so far; equal ones are emitted once."""

    imports: Imports
    taken: frozenset[str]
    names: Names
    known: dict[object, str] = field(default_factory=dict)
    body: list[Statement] = field(default_factory=list)

    def function(self, wanted: str, made: FunctionDef) -> Expression:
        """The name of an emitted function."""
        if made not in self.known:
            chosen = self.names.fresh(wanted)
            self.known[made] = chosen
            self.body.append(replace(made, name=chosen))
        return name(self.known[made])

    def kernel(self, plan: RulePlan, rows: RowsPlan | None) -> Expression:
        """The name of the kernel of one plan."""
        rule = plan.rule.name
        by_rows = bool(plan.averaged)
        written = by_rows_function if by_rows else update_function
        update = self.function(rule, written(plan, self.imports, self.taken))
        numbers = self.function(f"{rule}_numbers", numbers_function(plan, self.imports, self.taken))
        memories = to_expression(tuple(self._memory(m) for m in plan.memories))
        made = call("Kernel", update, numbers, memories=memories, form=plan.form, reason=plan.reason)
        if by_rows:
            made = replace(made, kwargs=(*made.kwargs, ("by_rows", to_expression(True))))
        if rows is not None:
            function = self.function(f"{rule}_rows", rows_function(rows, self.imports, self.taken))
            made = replace(made, kwargs=(*made.kwargs, ("rows", function)))
        if made not in self.known:
            chosen = self.names.fresh(f"{rule.upper()}_KERNEL")
            self.known[made] = chosen
            self.body.append(assign(chosen, made))
        return name(self.known[made])

    def _memory(self, memory: RuleMemory) -> Expression:
        if memory.shape is None and memory.initial is None:
            return call("Memory", memory.name)
        shape: Like = memory.shape
        if memory.initial is None:
            return call("Memory", memory.name, shape)
        init = memory.initial.init
        fill = self.imports.use(f"nldsl.runtime.module:{init.kind}")
        return call("Memory", memory.name, shape, fill(init.scale))


def lower_optimizer(
    text: OptimizerText,
    plans: Mapping[Shape, RulePlan],
    doc: str,
    rows: Mapping[Shape, RowsPlan],
) -> Module:
    """The module of an optimizer: functions, kernels, and one subclass of `RuleOptimizer`."""
    imports = Imports()
    imports.use("nldsl.runtime.rule_kernel:Kernel")
    imports.use("nldsl.runtime.rule_optimizer:RuleOptimizer")
    taken: frozenset[str] = RESERVED | OWN
    while True:
        # Names of functions must not be taken by locals; the second turn knows all of them.
        kernels = Kernels(imports, taken, Names(RESERVED | OWN | imports.functions))
        table = tuple(
            (to_expression(shape), kernels.kernel(plan, rows.get(shape))) for shape, plan in plans.items()
        )
        found = RESERVED | OWN | imports.functions | frozenset(kernels.names.taken)
        if found == taken:
            break
        taken = found
    if any(plan.memories for plan in plans.values()):
        imports.use("nldsl.runtime.rule_kernel:Memory")
    body = (*kernels.body, _class(text, table))
    members = {"torch": {"Tensor"}, **{m: set(n) for m, n in imports.names.items()}}
    return Module(doc, (*import_block(members, body=body), *body))


def _class(text: OptimizerText, table: tuple[tuple[Expression, Expression], ...]) -> ClassDef:
    """`class Adamw(RuleOptimizer)` with its arguments and kernels as class attributes."""
    arguments = DictOf(tuple((to_expression(n), to_expression(v)) for n, v in text.arguments))
    fixed = DictOf(tuple((to_expression(n), to_expression(_plain(v))) for n, v in text.fixed))
    body: tuple[Statement, ...] = (
        assign("rule", text.name),
        assign("arguments", arguments),
        assign("fixed", fixed),
        assign("kernels", DictOf(table)),
    )
    return ClassDef(class_name(text.name), (name("RuleOptimizer"),), body, text.doc)


def class_name(rule: str) -> str:
    """`m3_ema` -> `M3Ema`.

    Example:
        >>> class_name("delta_momentum")
        'DeltaMomentum'
    """
    joined = "".join(p[:1].upper() + p[1:] for p in re.split(r"_+", rule) if p)
    return joined if joined.isidentifier() and joined not in OWN else f"Rule{joined}"


def _plain(value: Static) -> Like:
    return value if not isinstance(value, tuple) else tuple(_plain(v) for v in value)
