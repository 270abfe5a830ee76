"""How the rule of a group is computed for one weight, in words."""

from __future__ import annotations

from nldsl.catalog.values import Shape
from nldsl.diagnostics import SpecError
from nldsl.lowerings.optimizer_passes import native
from nldsl.plan.rule_rows import NotOneProductError, fuse_rows, looks_at_rows
from nldsl.plan.rules import plan_rule
from nldsl.spec.outer_rules import OuterRule, weight_shape
from nldsl.spec.program import GroupRule

WORDS = {0: "numbers", 1: "vectors", 2: "matrices"}


def rule_form(group: GroupRule, shape: Shape, linear: bool) -> str:
    """One sentence: for which weights, which form, and the reason; empty for a rule that is not known.

    Example:
        >>> from nldsl.spec.open_rule import open_rule
        >>> rule_form(open_rule("muon", lr=0.1), (4, 3), True)
        'matrices: matrix by matrix in torch; `orthogonalize` looks at more than one element'
    """
    if group.outer is None:
        return ""
    try:
        return _form(group.outer, weight_shape(shape), linear)
    except SpecError as error:
        return f"refused: {error.diagnostics[0].message}"


def _form(outer: OuterRule, shape: Shape, linear: bool) -> str:
    weights = WORDS[len(shape)]
    if looks_at_rows(outer.at(outer.probe, True)):
        return _with_rows(outer, linear)
    plan = plan_rule(outer.at(shape, False), shape)
    loop = native(plan)
    if loop.text:
        how = "one loop" if plan.form == "elementwise" else "loops with sums between them"
        return (
            f"{weights}: {how} in C from 65,536 elements or 8,192 updates on where there is a compiler, "
            f"else torch; {plan.reason}"
        )
    kind = "element by element in torch" if plan.form == "elementwise" else "matrix by matrix in torch"
    return f"{weights}: {kind}; {loop.reason}"


def _with_rows(outer: OuterRule, linear: bool) -> str:
    """A rule that looks at the inputs of layers."""
    try:
        fuse_rows(outer.at(outer.probe, True), outer.probe)
    except NotOneProductError as reason:
        if linear:
            return f"linear layers: row by row at the step, which is slow; {reason}"
        return f"refused: weights without an input have no rows; {reason}"
    if linear:
        return f"linear layers: one product in the backward pass; `{outer.name}` looks at their inputs"
    return "weights without an input (embeddings, norms, biases): the gradient in place of that product"
