"""Rules that look at the inputs of a linear layer: the mean over its rows of what the rule does for each.

With `W' = W - e (W x) x^T - r g` for one row (Eq. 56-57), N rows and the gradient of a mean loss,
`W' = W - sum_t (e_t / N y_t + r_t dy_t) x_t^T`: one product, with other rows in place of `dy`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.calculus.expression import Expr
from nldsl.calculus.rules import rule_form
from nldsl.catalog.values import Kind, Shape
from nldsl.diagnostics import Diagnostic, SpecError
from nldsl.spec.program import Apply, Function, Rule, Value

RATE = "lr"
"""The argument a step is measured in: what stands in place of the gradient is the step divided by it."""


@dataclass(frozen=True)
class RowsPlan:
    """What takes the place of `dy`: `(erase share y + rate dy) / lr`, row by row; `share` is 1 / N."""

    rule: Rule
    erase: Expr
    rate: Expr


def looks_at_rows(rule: Rule) -> bool:
    """Whether a rule asks for the input or the output gradient of a linear layer."""
    return any(v.name in ("x", "dy") for v in rule.function.inputs)


def plan_rows(rule: Rule, shape: Shape) -> RowsPlan:
    """The plan of a rule with inputs; raises NL0701 for one that has no fused form."""
    analysis = rule_form(rule, shape)
    form = analysis.form
    reason = analysis.reason
    if form is not None and (form.momentum is not None or form.keep.value != 1.0):
        reason = f"rule `{rule.name}` keeps memories or scales the weight beside looking at inputs"
    elif form is not None and RATE not in {spoken.name for _, spoken in rule.arguments}:
        reason = f"rule `{rule.name}` looks at inputs and has no argument `{RATE}`"
    elif form is not None:
        return RowsPlan(rule, form.erase, form.rate)
    raise SpecError(
        [Diagnostic("NL0701", f"not supported in training yet: {reason}", help="`dgd` shows the form")]
    )


def gradient_rule(rule: Rule, shape: Shape) -> Rule:
    """`W' = W - lr g`: the step once the rows have done their part, and of weights that have no rows."""
    kind: Kind = "matrix" if len(shape) == 2 else "vector"
    weight, g = Value("W", shape, kind), Value("g", shape, kind)
    inside = next(name for name, spoken in rule.arguments if spoken.name == RATE)
    rate = Value(inside, (), "scalar")
    step, new = Value("W_mul", shape, kind), Value("W_1", shape, kind)
    body = (Apply(step, "mul", (rate, g)), Apply(new, "sub", (weight, step)))
    function = Function(rule.name, (weight, g, rate), (), body, (new,))
    return Rule(rule.name, function, (), rule.arguments, rule.static)
