"""What the calculus knows about one write, asked once for all recognisers."""

from __future__ import annotations

from nldsl.calculus.affine import affine_in
from nldsl.calculus.differentiate import MapGradient, NotDifferentiableError, gradient
from nldsl.calculus.expression import Expr, walk
from nldsl.calculus.rules import RuleForm, rule_form
from nldsl.calculus.simplify import build, substitute
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Memory, Term, Write


def plain_write(memory: Memory, write: Write) -> Refusal | None:
    """Clauses no parallel form handles yet; `None` if the write has none of them."""
    problems = (
        (len(write.terms) != 1, "several terms step together"),
        (write.at_commit, "the rule runs at the commit"),
        (write.project is not None, "the write projects its weights"),
        (
            any(t.window != 1 or t.weight is not None for t in write.terms),
            "the objective covers several tokens",
        ),
        (
            write.retain is not None and write.retain_axis != "scalar",
            f"retention per {write.retain_axis} channel",
        ),
        (memory.init in ("from", "first"), "its initial state is not a plain parameter"),
        (memory.reset == "tokens", "it resets by its own clock"),
        (memory.clock.unit != "tokens", f"it counts {memory.clock.unit}"),
    )
    return next((Refusal(reason) for found, reason in problems if found), None)


def closed_gradient(memory: Memory, term: Term) -> MapGradient | Refusal:
    """The gradient of the term's objective at the memory's map, or why there is none."""
    assert memory.function is not None
    try:
        found = gradient(memory.function, term.objective)
    except NotDifferentiableError as error:
        return Refusal(str(error))
    if found.sees_memory:
        return Refusal(f"objective `{term.objective.name}` looks at the memory itself")
    return found


def makes_matrices(memory: Memory) -> Refusal | None:
    """Whether the map makes a matrix of its input; such a map cannot take many tokens at once."""
    assert memory.function is not None
    if any(a.op == "outer" for a in memory.function.body):
        return Refusal(f"map `{memory.function.name}` makes a matrix of every token")
    return None


def rank_one_rule(term: Term, shape: tuple[int, ...]) -> RuleForm | Refusal:
    """The rule as `W' = W - erase (W x) x^T - rate g`, or why it is not of that form."""
    analysis = rule_form(term.rule, shape)
    if analysis.form is None:
        return Refusal(analysis.reason)
    if analysis.form.momentum is not None:
        return Refusal(f"rule `{term.rule.name}` has momentum")
    if analysis.form.keep.value != 1.0:
        return Refusal(f"rule `{term.rule.name}` scales the weight")
    return analysis.form


def _unspread(expr: Expr, prediction: Expr) -> Expr:
    """A number repeated along the prediction is that number: emitted rows repeat it."""
    return expr.args[0] if expr.op == "expand_last" and expr.args[1] is prediction else expr


def matrix_step(memory: Memory, term: Term) -> tuple[Expr | None, Expr, str] | Refusal:
    """(erase, add, reason) of `M' = M - erase (M k) k^T + add k^T` for a linear map, or why not.

    With the gradient `delta k^T`, `delta = c M k + e`, the rule's `erase` and `rate` give
    `erase + rate c` and `-rate e`.
    """
    found = closed_gradient(memory, term)
    if isinstance(found, Refusal):
        return found
    one = len(found.weights) == 1 and len(found.weights[0].shape) == 2
    # A weight may act on a part of the key alone, as in a block-diagonal map: no product of the two then.
    meets = one and found.weights[0].shape[-1:] == found.key.shape[-1:]
    linear = meets and found.forward is build("matmul", found.weights[0], found.key)
    if not linear:
        return Refusal(f"map `{memory.function.name if memory.function else '?'}` is not one matrix")
    split = affine_in(found.objective_delta, found.prediction)
    slope = None if split is None else split.scalar_coefficient()
    if split is None or slope is None:
        return Refusal(f"the gradient of `{term.objective.name}` is not affine in the memory's answer")
    form = rank_one_rule(term, found.weights[0].shape)
    if isinstance(form, Refusal):
        return form
    at_key = {form.x: found.key}
    rate = substitute(form.rate, at_key)
    erase = build("add", substitute(form.erase, at_key), build("mul", rate, slope))
    add = build("neg", build("mul", rate, _unspread(split.constant, found.prediction)))
    if any(found.prediction in walk([e]) for e in (erase, add)):
        return Refusal(f"the gradient of `{term.objective.name}` depends on the size of the answer")
    if erase.value == 0.0:
        return None, add, f"the gradient of `{term.objective.name}` does not depend on the memory"
    return (
        erase,
        add,
        f"`{term.objective.name}` with `{term.rule.name}` is affine in the memory, of rank one along the key",
    )
