"""From a rule to a running optimizer: elaborate, plan, lower, emit, load."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nldsl.catalog.values import Shape
from nldsl.diagnostics import SpecError
from nldsl.emit.loader import load_module
from nldsl.emit.printer import print_module
from nldsl.lowerings.optimizer import OptimizerText, class_name, lower_optimizer
from nldsl.plan.rules import RulePlan, plan_rule
from nldsl.runtime.rule_kernel import Kernel
from nldsl.runtime.rule_optimizer import RuleOptimizer
from nldsl.spec.open_rule import open_rule
from nldsl.spec.outer_rules import OuterRule
from nldsl.spec.program import GroupRule

SETTINGS = ("every", "nonfinite", "form", "seed")
"""Keywords of `optimizer` that are no arguments of the rule."""


def optimizer(rule: str | Path | GroupRule, params: Any, **keywords: Any) -> RuleOptimizer:
    """The optimizer of a rule for these parameters, as a `torch.optim.Optimizer`.

    rule: a name of the library, a call such as `"lookahead(adamw(lr = 1e-3))"`, the text of a rule, or a
    file.  params: a module, parameters, named parameters, or groups of either.  keywords: the arguments of
    the rule, and `every`, `nonfinite`, `form` and `seed` of `RuleOptimizer`.  The emitted text is `.source`.

    Errors: `SpecError` with every diagnostic.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> adamw = optimizer("adamw", layer.parameters(), lr=1e-3)
        >>> sorted(adamw.state[layer.weight])
        ['m', 's', 'step']
        >>> adamw.source.splitlines()[0]
        '\"\"\"The rule `adamw`, compiled by nldsl.  Edit the rule, not this file.'
    """
    settings = {n: keywords.pop(n) for n in SETTINGS if n in keywords}
    group = rule if isinstance(rule, GroupRule) else open_rule(rule, **keywords)
    if group.outer is None:
        peaks = {name: dict(options).get("value", 1.0) for name, _, options in group.schedules}
        group = open_rule(group.rule, **dict(group.arguments), **peaks)
    assert group.outer is not None
    listed = given(params)
    made = optimizer_class(group.outer, shapes(listed))
    return made(listed, more=More(group.outer), **settings)


def given(params: Any) -> list[Any]:
    """Parameters as a list, generators used up; of a module they are named."""
    if isinstance(params, nn.Module):
        return list(params.named_parameters())
    if isinstance(params, Tensor):
        raise TypeError("`params` is a list of parameters, found one tensor")
    return [_listed(entry) for entry in params]


def _listed(entry: Any) -> Any:
    if not isinstance(entry, dict) or isinstance(entry["params"], Tensor):
        return entry
    return {**entry, "params": list(entry["params"])}


def shapes(params: Iterable[Any]) -> list[Shape]:
    """The shapes kernels are needed for, each once."""
    found: dict[Shape, None] = {}
    for entry in params:
        members = entry["params"] if isinstance(entry, dict) else [entry]
        for p in [members] if isinstance(members, Tensor) else members:
            tensor = p[1] if isinstance(p, tuple) else p
            for shape in RuleOptimizer._shapes(tensor) if isinstance(tensor, Tensor) else ():
                found.setdefault(shape)
    return list(found)


def optimizer_class(outer: OuterRule, wanted: Iterable[Shape]) -> type[RuleOptimizer]:
    """The emitted class with kernels for these shapes."""
    plans = {shape: plan for shape in wanted if (plan := plan_for(outer, shape)) is not None}
    names = [a.name for a in outer.open]
    assert all([n for n, _ in p.arguments] == names for p in plans.values()), "arguments out of order"
    text = print_module(lower_optimizer(_text(outer), plans, _doc(outer)))
    made: type[RuleOptimizer] = getattr(load_module(text, f"rule_{outer.name}"), class_name(outer.name))
    made.source = text
    return made


def plan_for(outer: OuterRule, shape: Shape) -> RulePlan | None:
    """The plan for one shape; `None` for a vector if the rule works on matrices only."""
    try:
        return plan_rule(outer.at(shape, linear=False), shape)
    except SpecError:
        if len(shape) == 2:
            raise
        return None


class More:
    """Kernels for shapes that come later, with `add_param_group`."""

    def __init__(self, outer: OuterRule) -> None:
        self.outer = outer

    def __call__(self, shape: Shape) -> Kernel | None:
        """The kernel for `shape`, if the rule can train it."""
        return optimizer_class(self.outer, [shape]).kernels.get(shape)


def _text(outer: OuterRule) -> OptimizerText:
    arguments = tuple((a.name, a.value) for a in outer.open)
    return OptimizerText(outer.name, _doc(outer, ""), arguments, outer.fixed)


def _doc(outer: OuterRule, end: str = "  Edit the rule, not this file.") -> str:
    head = f"The rule `{outer.name}`, compiled by nldsl.{end}"
    return f"{head}\n\n{outer.definition.span.text.strip()}"
