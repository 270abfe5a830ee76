"""How every weight of a chunked memory steps, term by term, with its gradient held at a base."""

from __future__ import annotations

from dataclasses import replace

from nldsl.calculus.differentiate import NotDifferentiableError, WeightGradient, gradient
from nldsl.calculus.expression import Expr, depends, walk
from nldsl.calculus.gradient_size import looks_at_gradient, sized_form
from nldsl.calculus.mirror import mirror_form
from nldsl.calculus.rule_states import rule_states
from nldsl.calculus.rules import RuleForm, RuleSymbols, rule_form
from nldsl.plan.closed import makes_matrices
from nldsl.plan.details import Dual, MomentumStep, WeightStep
from nldsl.plan.verdict import Refusal
from nldsl.spec.program import Memory, Term, Write


def write_steps(memory: Memory, write: Write) -> tuple[tuple[WeightStep, ...], ...] | Refusal:
    """The steps of every term; none for a write `at commit`, whose gradients are only gathered."""
    found = _all_steps(memory, write, False)
    if isinstance(found, Refusal) and not write.at_commit:
        found = _all_steps(memory, write, True)
    if isinstance(found, Refusal):
        return found
    if write.retain is not None and write.retain_axis != "scalar":
        meets = f"retention per {write.retain_axis} channel meets a rule that"
        if any(s.erases for term in found for s in term):
            return Refusal(f"{meets} erases")
        if any(s.states is not None or s.keep is not None for term in found for s in term):
            return Refusal(f"{meets} mixes the weight with what it remembers, or scales it")
        if any(s.constant for term in found for s in term):
            return Refusal(f"retention per {write.retain_axis} channel meets a penalty on the memory itself")
    return tuple(found)


def commit_steps(memory: Memory, write: Write) -> tuple[WeightStep, ...] | Refusal:
    """How the rule of a write `at commit`, of one term, moves every weight by a sum of gradients."""
    found = _all_steps(memory, replace(write, at_commit=False), False)
    if isinstance(found, Refusal):
        return found
    if len(found) > 1:
        return Refusal("several terms")
    if any(s.dual is not None for s in found[0]):
        return Refusal("a rule that steps in a dual")
    if any(looks_at_gradient(*_numbers(s)) for s in found[0]):
        return Refusal(f"rule `{write.terms[0].rule.name}` looks at the size of a sum of gradients")
    return found[0]


def _numbers(step: WeightStep) -> tuple[Expr | None, ...]:
    m = step.momentum
    return (step.erase, step.rate, step.keep, *(() if m is None else (m.beta, m.rate, m.read, m.erase)))


def _all_steps(memory: Memory, write: Write, mixed: bool) -> list[tuple[WeightStep, ...]] | Refusal:
    """The steps of every term; `mixed`: as states that mix, which any linear rule does."""
    found = []
    for term in write.terms:
        steps = _term_steps(memory, term, write, mixed)
        if isinstance(steps, Refusal):
            return steps
        found.append(steps)
    return found


def _term_steps(memory: Memory, term: Term, write: Write, mixed: bool) -> tuple[WeightStep, ...] | Refusal:
    assert memory.function is not None
    try:
        found = gradient(memory.function, term.objective)
    except NotDifferentiableError as error:
        return Refusal(str(error))
    refusal = makes_matrices(memory)
    if refusal is not None:
        return refusal
    steps = []
    for weight in found.gradients:
        products = _products(weight)
        if isinstance(products, Refusal):
            return products
        if write.at_commit:
            steps.append(WeightStep(weight.name, None, None, products=products, constant=_constant(weight)))
            continue
        if mixed:
            step = _mixed(term, weight, products)
        else:
            one = products == 1 and not _constant(weight) and _one_lesson(memory, term)
            step = _mirrored(term, weight, products) or _linear(term, weight, products, one)
        if isinstance(step, Refusal):
            return step
        steps.append(replace(step, constant=_constant(weight)))
    if len({s.dual is None for s in steps}) > 1:
        return Refusal(f"rule `{term.rule.name}` steps in a dual for some weights only")
    return tuple(steps)


def _linear(term: Term, weight: WeightGradient, products: int, one: bool) -> WeightStep | Refusal:
    """The step by a linear rule; `one`: where the gradient of a token is one product, also by its size."""
    form = _rule(term, weight)
    if isinstance(form, Refusal) and one:
        sized = sized_form(term.rule, weight.weight.shape)
        form = form if sized is None else sized
    return form if isinstance(form, Refusal) else _step(weight.name, form, products)


def _one_lesson(memory: Memory, term: Term) -> bool:
    """Whether a rule is given the gradient of one token at one key, as it is."""
    several = term.key.kind == "headed" and not (memory.per_head and term.key.shape[0] == memory.heads)
    return not several and term.window == 1 and term.weight is None


def _mixed(term: Term, weight: WeightGradient, products: int) -> WeightStep | Refusal:
    """The weight and the memories of its rule, as states."""
    if _constant(weight):
        return Refusal(f"a penalty on `{weight.name}` meets a rule whose memories mix with the weight")
    form = rule_states(term.rule, weight.weight.shape)
    if isinstance(form, str):
        return Refusal(form)
    if weight.x is None and any(depends(e, [RuleSymbols.of(weight.weight.shape).x]) for e in form.numbers()):
        return Refusal(f"rule `{term.rule.name}` asks for the input of `{weight.name}`, which has not one")
    if weight.x is None and form.erases:
        return Refusal(
            f"rule `{term.rule.name}` erases along the input of `{weight.name}`, which has not one"
        )
    return WeightStep(weight.name, None, None, products=products, states=form)


def _mirrored(term: Term, weight: WeightGradient, products: int) -> WeightStep | Refusal | None:
    """The step of the dual, if the rule has one; `None` if it steps the weight itself."""
    if not term.rule.slots or rule_form(term.rule, weight.weight.shape).form is not None:
        return None
    form = mirror_form(term.rule, weight.weight.shape)
    if form is None:
        return None
    if weight.x is None and any(depends(e, [form.x]) for e in (form.keep, form.rate)):
        return Refusal(f"rule `{term.rule.name}` asks for the input of `{weight.name}`, which has not one")
    keep = None if form.keep.value == 1.0 else form.keep
    dual = Dual(form.slot, form.link, form.dual, form.seeded)
    return WeightStep(weight.name, None, form.rate, keep, None, products, dual)


def _products(weight: WeightGradient) -> int | Refusal:
    """How many outer products make the gradient of every token; 0 for a bias."""
    if len(weight.weight.shape) == 1:
        return 0
    parts = [e for t in weight.outer_terms for e in (t.x, t.dy)]
    if weight.general is not weight.constant or not parts:
        return Refusal(f"the gradient of weight `{weight.name}` is no sum of outer products")
    if any(e.op == "outer" for e in walk(parts)):
        return Refusal(f"the gradient at `{weight.name}` makes a matrix of every token")
    return len(weight.outer_terms)


def _constant(weight: WeightGradient) -> bool:
    """Whether a matrix that is the same for every token is part of the gradient."""
    return len(weight.weight.shape) == 2 and weight.constant is not None


def _rule(term: Term, weight: WeightGradient) -> RuleForm | Refusal:
    """The rule as a linear step of this weight."""
    analysis = rule_form(term.rule, weight.weight.shape)
    form = analysis.form
    if form is None:
        return Refusal(analysis.reason)
    if weight.x is None and any(depends(e, [form.x]) for e in _coefficients(form)):
        return Refusal(f"rule `{term.rule.name}` asks for the input of `{weight.name}`, which has not one")
    inside = form.momentum is not None and form.momentum.erase.value != 0.0
    if weight.x is None and (form.erase.value != 0.0 or inside):
        return Refusal(
            f"rule `{term.rule.name}` erases along the input of `{weight.name}`, which has not one"
        )
    return form


def _coefficients(form: RuleForm) -> list[Expr]:
    m = form.momentum
    extra = [m.beta, m.rate, m.read, m.erase] if m is not None else []
    return [form.keep, form.erase, form.rate, *extra]


def _step(weight: str, form: RuleForm, products: int) -> WeightStep:
    momentum = None
    if form.momentum is not None:
        m = form.momentum
        erase = None if m.erase.value == 0.0 else m.erase
        momentum = MomentumStep(m.slot, m.beta, m.rate, m.read, erase)
    return WeightStep(
        weight,
        None if form.erase.value == 0.0 else form.erase,
        None if form.rate.value == 0.0 and momentum is not None else form.rate,
        None if form.keep.value == 1.0 else form.keep,
        momentum,
        products,
    )
