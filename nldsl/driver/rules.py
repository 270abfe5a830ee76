"""From a rule to a running optimizer: elaborate, plan, lower, emit, load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nldsl.catalog.values import Shape
from nldsl.diagnostics import SpecError
from nldsl.emit.loader import load_module
from nldsl.emit.printer import print_module
from nldsl.lowerings.optimizer import OptimizerText, class_name, lower_optimizer
from nldsl.lowerings.optimizer_passes import native
from nldsl.plan.rule_rows import NotOneProductError, RowsPlan, fuse_rows, looks_at_rows, retyped
from nldsl.plan.rules import RulePlan, plan_rule
from nldsl.runtime.rule_kernel import Kernel, Told, refusal
from nldsl.runtime.rule_optimizer import RuleOptimizer
from nldsl.runtime.rule_rows import multiplies
from nldsl.spec.open_rule import open_rule
from nldsl.spec.outer_rules import OuterRule
from nldsl.spec.program import GroupRule
from nldsl.spec.walk import linear_paths

SETTINGS = ("every", "nonfinite", "form", "seed")
"""Keywords of `optimizer` that are no arguments of the rule."""


def optimizer(rule: str | Path | GroupRule, params: Any, **keywords: Any) -> RuleOptimizer:
    """The optimizer of a rule for these parameters, as a `torch.optim.Optimizer`.

    rule: a name of the library, a call such as `"lookahead(adamw(lr = 1e-3))"`, the text of a rule, or a
    file.  params: a module, parameters, named parameters, or groups of either.  keywords: the arguments of
    the rule; `every`, `nonfinite`, `form` and `seed` of `RuleOptimizer`; `module`, if `params` is none, for
    rules that look at the inputs of linear layers.  The emitted text is `.source`.

    Errors: `SpecError` with every diagnostic.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> adamw = optimizer("adamw", layer.parameters(), lr=1e-3)
        >>> sorted(adamw.state[layer.weight])
        ['m', 's', 'step']
        >>> adamw.source.splitlines()[0]
        '\"\"\"The rule `adamw`, compiled by nldsl.  Edit the rule, not this file.'
    """
    module = keywords.pop("module", params if isinstance(params, nn.Module) else None)
    settings = {n: keywords.pop(n) for n in SETTINGS if n in keywords}
    tensors = {n: v for n, v in keywords.items() if isinstance(v, Tensor) and v.numel() == 1}
    keywords = {name: _plain(value) for name, value in keywords.items()}
    group = rule if isinstance(rule, GroupRule) else open_rule(rule, **keywords)
    if group.outer is None:
        peaks = {name: dict(options).get("value", 1.0) for name, _, options in group.schedules}
        arguments: dict[str, Any] = {**dict(group.arguments), **peaks}
        group = open_rule(group.rule, **arguments)
    assert group.outer is not None
    listed = given(params)
    made = optimizer_class(group.outer, shapes(listed))
    open_tensors = {n: v for n, v in tensors.items() if n in made.arguments}  # as they are: they may change
    ready = made(listed, more=More(group.outer), **cast(Any, {**settings, **open_tensors}))
    if any(kernel.looks_at_rows for kernel in ready.kernels.values()):
        attach_rows(ready, module)
    return ready


def _plain(value: Any) -> Any:
    """A tensor of one element as a number, a list as the language has it."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    return tuple(value) if isinstance(value, list) else value


def given(params: Any) -> list[Any]:
    """Parameters as a list, generators used up; of a module they are named."""
    if isinstance(params, nn.Module):
        return list(params.named_parameters())
    if isinstance(params, Tensor):
        raise TypeError("`params` is a list of parameters, found one tensor")
    if not isinstance(params, Iterable):
        raise TypeError(f"`params` is a module or a list of parameters, found {params!r}")
    return [_listed(entry) for entry in params]


def _listed(entry: Any) -> Any:
    if isinstance(entry, dict) and "params" not in entry:
        raise TypeError(f"a group of parameters has an entry `params`, found {', '.join(map(repr, entry))}")
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
            if is_lazy(tensor):
                raise refusal(
                    "NL0963",
                    f"{f'`{p[0]}`' if isinstance(p, tuple) else 'a parameter'} has no shape yet",
                    "a lazy module gets its shapes in its first forward pass: call the model once before",
                )
            for shape in RuleOptimizer._shapes(tensor) if isinstance(tensor, Tensor) else ():
                found.setdefault(shape)
    return list(found)


def optimizer_class(outer: OuterRule, wanted: Iterable[Shape]) -> type[RuleOptimizer]:
    """The emitted class with kernels for these shapes."""
    plans = {shape: plan for shape in wanted if (plan := plan_for(outer, shape)) is not None}
    names = [a.name for a in outer.open]
    assert all([n for n, _ in p.arguments] == names for p in plans.values()), "arguments out of order"
    rows: dict[Shape, RowsPlan] = {
        s: fuse_rows(outer.at(s, True), s).rows for s, p in plans.items() if len(s) == 2 and _fused(outer, p)
    }
    text = print_module(lower_optimizer(_text(outer), plans, _doc(outer), rows))
    made: type[RuleOptimizer] = getattr(load_module(text, f"rule_{outer.name}"), class_name(outer.name))
    loops = {shape: native(plan) for shape, plan in plans.items()}
    made.complete(Told(text, outer.bounds, {s: (loop.text, loop.reason) for s, loop in loops.items()}))
    return made


def has_rows(outer: OuterRule) -> bool:
    """Whether the rule looks at the inputs of linear layers."""
    return looks_at_rows(outer.at(outer.probe, True))


def _fused(outer: OuterRule, plan: RulePlan) -> bool:
    """Whether the rows of a rule are one product in the backward pass."""
    return has_rows(outer) and not plan.averaged


def attach_rows(ready: RuleOptimizer, module: nn.Module | None) -> None:
    """Let the linear layers of `module` pull the rows of the rule.

    Raises NL0972 if there is none, NL0963 for a weight without rows under a rule that needs each of them.
    """
    wanted = {p for group in ready.param_groups for p in group["params"]}
    found = [(layer, weight) for layer, weight in linear_weights(module) if weight in wanted]
    if not found:
        raise refusal(
            "NL0972",
            f"`{ready.rule}` looks at the inputs of linear layers, and none of these weights has any",
            "give the module that holds them: `nldsl.optimizer(rule, model)`, or `module = model`",
        )
    for layer, weight in found:
        ready.attach_rows(layer, weight)
    for p in (p for group in ready.param_groups for p in group["params"] if p not in ready.rows):
        if ready.kernel_of(p).by_rows:
            raise refusal(
                "NL0963",
                f"`{ready.rule}` needs the rows of a linear layer, and {ready.name_of(p)} is not the weight "
                f"of one: {ready.kernel_of(p).reason}",
                "give it to another rule, such as `adamw(lr = 3e-4)`",
            )


def linear_weights(module: nn.Module | None) -> Iterator[tuple[nn.Module | None, Tensor]]:
    """Weights that are used as `W @ x`, of emitted models and of `nn.Linear` layers."""
    program = vars(module).get("program") if module is not None else None
    if module is not None and program is not None:
        paths: Any = cast(Any, module).parameter_paths()
        yield from ((None, paths[path]) for path in linear_paths(program.root))
        return
    for layer in module.modules() if module is not None else ():
        if isinstance(layer, nn.Linear) and multiplies(layer):
            yield layer, layer.weight


def plan_for(outer: OuterRule, shape: Shape) -> RulePlan | None:
    """The plan for one shape; `None` for a vector if the rule works on matrices only.

    Of a rule whose rows are one product in the backward pass, what is left to do behind it; weights without
    inputs (embeddings, norms, biases) take their gradient in its place.
    """
    if has_rows(outer):
        return _plan_with_rows(outer, shape)
    try:
        return plan_rule(outer.at(shape, linear=False), shape)
    except SpecError:
        if len(shape) == 2:
            raise
        return None


def _plan_with_rows(outer: OuterRule, shape: Shape) -> RulePlan | None:
    """The plan of a rule that looks at the inputs of layers."""
    of = shape if len(shape) == 2 else outer.probe
    rule = outer.at(of, True)
    try:
        rest = fuse_rows(rule, of).rest
    except NotOneProductError as reason:
        return plan_rule(rule, shape, str(reason)) if of == shape else None
    if of == shape:
        return plan_rule(rest, shape)
    plan = plan_rule(retyped(rest, of, shape), shape)
    return plan if plan.form == "elementwise" else None


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
