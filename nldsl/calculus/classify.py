"""What kind of recurrence a write is: constant, rank-one linear, chunkable, or sequential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.calculus.affine import affine_in, scalar_value
from nldsl.calculus.differentiate import MapGradient, NotDifferentiableError, WeightGradient, gradient
from nldsl.calculus.expression import Expr, depends, number
from nldsl.calculus.gradient_size import sized_form
from nldsl.calculus.lift import block_expression
from nldsl.calculus.memo import by_identity
from nldsl.calculus.mirror import mirror_form
from nldsl.calculus.normal import canonical
from nldsl.calculus.pieces import NotRankOneError, TermForm, stacked_forms
from nldsl.calculus.polynomial import TooLargeError
from nldsl.calculus.positive import positive
from nldsl.calculus.rule_states import rule_states
from nldsl.calculus.rules import RuleAnalysis, RuleForm, RuleSymbols, rule_form
from nldsl.calculus.simplify import build, substitute
from nldsl.calculus.stacks import StackedMap
from nldsl.spec.program import Apply, Block, Memory, Rule, Term, Value, Write

Letter = Literal["D", "R", "N", "X"]


@dataclass(frozen=True)
class MapForm:
    """A map of one weight that is affine in it: `forward = scale * (weight @ x) + offset`."""

    weight: Expr
    x: Expr
    scale: Expr
    offset: Expr


@dataclass(frozen=True)
class DeltaForm:
    """One term on a matrix, in closed form with its gradient at the running state.

    Without momentum `W' = keep * W - erase * outer(W @ x, x) + outer(value, x)`.  With momentum
    `m' = beta * m - erase * outer(W @ x, x) + outer(value, x)` and `W' = keep * W + read * m'`.
    Symbols: `key`, `target` and the rule's arguments; all fields are free of the weight.
    """

    keep: Expr
    erase: Expr
    value: Expr
    x: Expr
    momentum: tuple[Expr, Expr] | None = None
    """(beta, read) of the filter."""


@dataclass(frozen=True)
class TermClass:
    """One term of a write.

    `dependence` is how the objective's gradient `delta` depends on the prediction: constant,
    affine (`delta = slope * prediction + rest`) or nonlinear.  `rules` holds one analysis per
    weight, in the order of the map's weights.  `online` is the closed form with the gradient at the
    running state (C = b = 1); `chunked` says that with the gradient held at a base state every
    weight is still a rank-one linear recurrence.
    """

    gradient: MapGradient | None
    linear: MapForm | None
    dependence: Literal["constant", "affine", "nonlinear"]
    slope: Expr | None
    rest: Expr | None
    rules: tuple[RuleAnalysis, ...]
    online: DeltaForm | None
    chunked: bool
    reasons: tuple[str, ...]


StackedForms = tuple[StackedMap, tuple[tuple[TermForm, ...], ...]]
"""A map in matrices, and the pieces of every term for each."""


@dataclass(frozen=True)
class UpdateClass:
    """A write: its terms, and the class they make together.

    D: the state is a decayed sum of outer products that do not depend on it | R: rank-one linear
    recurrence, each step erases along a key | N: gradients at a base state make it D or R per
    weight | X: unknown, runs one token after the other.  `letter` holds for a gradient at the
    running state, `chunked_letter` for one at a base state.
    """

    letter: Letter
    chunked_letter: Letter
    terms: tuple[TermClass, ...]
    reasons: tuple[str, ...]
    stacks: StackedForms | None = None
    """Of a map of several weights, or of one at several places, that is linear in them all together."""


def map_form(forward: Expr, weights: tuple[Expr, ...]) -> MapForm | None:
    """The affine form of a map with one matrix weight; `None` if it has none."""
    if len(weights) != 1 or len(weights[0].shape) != 2:
        return None
    affine = affine_in(forward, weights[0])
    if affine is None or len(affine.parts) != 1 or affine.parts[0].kind != "product":
        return None
    part = affine.parts[0]
    if part.factor is None:
        return None
    return MapForm(weights[0], part.factor, part.coefficient, affine.constant)


def classify_term(memory: Memory, term: Term, toward: Literal["zero", "init"] = "zero") -> TermClass:
    """Everything the analysis knows about one term of a write to `memory`.

    With `toward = "init"` the rule acts on the distance from the initial state but the gradient is
    taken at the state itself, so the two make one closed form only if the rule leaves `W` alone.
    """
    if memory.function is None:
        return _unknown("a softmax memory has no weights")
    try:
        found = gradient(memory.function, term.objective)
    except NotDifferentiableError as reason:
        return _unknown(str(reason))
    linear = map_form(found.forward, found.weights)
    dependence, slope, rest, why = _dependence(found, term.objective.name)
    rules = tuple(rule_form(term.rule, w.shape) for w in found.weights)
    reasons = [_linear_reason(linear, found), why, *dict.fromkeys(r.reason for r in rules)]
    online = _online(linear, slope, rest, rules, found.sees_memory)
    if toward == "init" and online is not None and not _leaves_weight(rules[0]):
        online = None
        reasons.append("the rule acts on the distance from the initial state, the gradient does not")
    chunked = all(_chunkable(g, r, term.rule) for g, r in zip(found.gradients, rules, strict=True))
    return TermClass(found, linear, dependence, slope, rest, rules, online, chunked, tuple(reasons))


def _leaves_weight(analysis: RuleAnalysis) -> bool:
    """Whether the rule only adds to the weight."""
    form = analysis.form
    return form is not None and form.adds_only


def _unknown(reason: str) -> TermClass:
    return TermClass(None, None, "nonlinear", None, None, (), None, False, (reason,))


def _linear_reason(linear: MapForm | None, found: MapGradient) -> str:
    if linear is None:
        return f"the map is not linear in one matrix ({len(found.weights)} weights)"
    return f"the map is linear in `{linear.weight.name}`"


def _dependence(
    found: MapGradient, name: str
) -> tuple[Literal["constant", "affine", "nonlinear"], Expr | None, Expr | None, str]:
    """How the objective's gradient depends on the prediction."""
    if found.sees_memory:
        return "nonlinear", None, None, f"objective `{name}` looks at the memory itself"
    affine = affine_in(found.objective_delta, found.prediction)
    slope = affine.scalar_coefficient() if affine is not None else None
    if affine is None or slope is None:
        return (
            "nonlinear",
            None,
            None,
            f"the gradient of `{name}` is not a multiple of the prediction plus a constant",
        )
    if slope.value == 0.0:
        return "constant", slope, affine.constant, f"the gradient of `{name}` does not depend on the memory"
    return (
        "affine",
        slope,
        affine.constant,
        f"the gradient of `{name}` is affine in the prediction, slope {slope}",
    )


def _online(
    linear: MapForm | None, slope: Expr | None, rest: Expr | None, rules: tuple[RuleAnalysis, ...], sees: bool
) -> DeltaForm | None:
    """Insert the affine gradient into the rule: `dy = s * (c * (s W x + b) + e)`."""
    if linear is None or slope is None or rest is None or sees or rules[0].form is None:
        return None
    form, s = rules[0].form, linear.scale
    at = {form.x: linear.x}
    rate = substitute(form.rate, at)
    own_erase = substitute(form.erase, at)
    keep = substitute(form.keep, at)
    if form.momentum is not None:
        if rate.value != 0.0 or own_erase.value != 0.0:
            return None
        rate = substitute(form.momentum.rate, at)
        own_erase = substitute(form.momentum.erase, at)
    pull = build("mul", rate, build("mul", slope, build("mul", s, s)))
    push = build("mul", s, build("add", build("mul", slope, linear.offset), rest))
    try:
        erase = canonical(build("add", own_erase, pull))
        value = canonical(build("neg", build("mul", rate, push)))
    except TooLargeError:
        return None
    if any(depends(e, [linear.weight]) for e in (erase, value, keep, linear.x)):
        return None
    filtered = None
    if form.momentum is not None:
        filtered = (substitute(form.momentum.beta, at), substitute(form.momentum.read, at))
    return DeltaForm(keep, erase, value, linear.x, filtered)


def _chunkable(grad: WeightGradient, analysis: RuleAnalysis, rule: Rule) -> bool:
    """With its gradient held constant, is the recurrence of the weight or its dual linear, of rank one?"""
    form = analysis.form
    if form is None:
        mixed = rule_states(rule, grad.weight.shape)
        if isinstance(mixed, str):
            of_rows = mirror_form(rule, grad.weight.shape) or sized_form(rule, grad.weight.shape)
            return grad.x is not None and of_rows is not None
        x = RuleSymbols.of(grad.weight.shape).x
        whole = len(grad.weight.shape) == 1 or grad.general is None
        asks = mixed.erases or any(depends(c, [x]) for c in mixed.numbers())
        return grad.x is not None or (whole and not asks)
    erases = form.erase.value != 0.0 or (form.momentum is not None and form.momentum.erase.value != 0.0)
    needs_input = erases or any(depends(c, [form.x]) for c in _coefficients(form))
    return (
        grad.x is not None
        or (not needs_input and grad.general is grad.constant)
        or len(grad.weight.shape) == 1
    )


def _coefficients(form: RuleForm) -> tuple[Expr, ...]:
    extra = (form.momentum.beta, form.momentum.rate, form.momentum.read) if form.momentum else ()
    return (form.keep, form.erase, form.rate, *extra)


@by_identity(32)
def update_class(memory: Memory, write: Write) -> UpdateClass:
    """The class of a write to `memory`, with one line of reason for each decision."""
    if write.append:
        reason = "appends to a softmax memory: nothing is learned by gradient"
        return UpdateClass("X", "X", (), (reason,))
    terms = tuple(classify_term(memory, t, write.toward) for t in write.terms)
    reasons = [r for t in terms for r in t.reasons]
    blocked = _blocked(write, terms)
    if blocked:
        held: Letter = "N" if _linear_when_held(write, terms) else "X"
        return UpdateClass("X", held, terms, (*reasons, blocked))
    letter = _letter(terms)
    stacks = _stacks(memory, write, terms) if letter == "X" else None
    if stacks is not None:
        erases = any(p.seen is not None for own in stacks[1] for f in own for p in f.pieces)
        letter = "R" if erases else "D"
        reasons = [_together(stacks[0]), *reasons[1:]]
    chunked: Letter = letter
    if letter == "X" and all(t.chunked for t in terms):
        chunked = "N"
    names = {
        "D": "a decayed sum of outer products",
        "R": "a rank-one linear recurrence",
        "N": "linear once gradients are held at a base state",
        "X": "unknown, so one token after the other",
    }
    if stacks is not None and letter == "R":
        names["R"] = "a linear recurrence for each matrix"
    return UpdateClass(letter, chunked, terms, (*reasons, f"class {chunked}: {names[chunked]}"), stacks)


def _stacks(memory: Memory, write: Write, terms: tuple[TermClass, ...]) -> StackedForms | None:
    """The pieces of a map that is more than one matrix, asked once, but linear in all its weights."""
    if not terms or any(t.gradient is None or t.linear is not None for t in terms):
        return None
    try:
        told, forms = stacked_forms(memory, write.terms, write.toward == "init")
    except NotRankOneError:
        return None
    return None if told.plain else (told, forms)


def _together(told: StackedMap) -> str:
    """Which weights are one matrix."""
    each = [f"`{'`, `'.join(s.names)}`" + (" side by side" if len(s.names) > 1 else "") for s in told.stacks]
    return f"the map is linear in its weights together: {'; '.join(each)}"


def _blocked(write: Write, classes: tuple[TermClass, ...]) -> str:
    """What no closed form covers, whatever the terms are."""
    if write.project is not None:
        return f"`project {write.project}` acts on the whole state"
    if write.at_commit:
        return "`at commit` runs the rule once per chunk"
    if any(t.window > 1 for t in write.terms):
        return "a window of tokens is more than one rank-one step"
    if any(t.weight is not None for t in write.terms):
        return "`weighted` scales the gradient by a value of its own"
    filtered = any(r.form is not None and r.form.momentum is not None for c in classes for r in c.rules)
    return "momentum with several terms" if filtered and len(classes) > 1 else ""


def _linear_when_held(write: Write, classes: tuple[TermClass, ...]) -> bool:
    """Whether the gradients of a base are all that tokens add: gathered for one step, or filtered."""
    if write.at_commit:
        return all(t.gradient is not None for t in classes)
    return write.project is None and all(t.chunked for t in classes)


def _letter(terms: tuple[TermClass, ...]) -> Letter:
    """D if nothing is erased, R if something is, X if a term has no closed form."""
    if not terms or any(t.online is None for t in terms):
        return "X"
    kept = all(scalar_value(t.online.erase) == 0.0 for t in terms if t.online is not None)
    return "D" if kept else "R"


def gate_expression(block: Block, gate: Value) -> Expr:
    """A gate as an expression of the values it is computed from (symbols of role `value`)."""
    return block_expression(block, gate.name)


def gate_name(block: Block, gate: Value) -> str:
    """What the author calls a gate: a number taken out of a vector of one is called as that is."""
    makers = (s for s in block.body if isinstance(s, Apply) and s.out.name == gate.name)
    maker = next((s for s in makers if s.op == "mean" and s.args[0].shape == (1,)), None)
    return maker.args[0].name if maker is not None else gate.name


def gate_positive(block: Block, gate: Value) -> bool:
    """Whether a gate is certainly positive, so that its logarithm may be summed."""
    return positive(gate_expression(block, gate))


def gate_logarithm(block: Block, gate: Value) -> Expr | None:
    """The logarithm of a gate in its most accurate form, `None` if it may not be positive.

    `exp(-softplus(a))` gives `-softplus(a)`, `sigmoid(a)` gives `logsigmoid(a)`.
    """
    expr = gate_expression(block, gate)
    return build("log", expr) if positive(expr) else None


def is_zero(expr: Expr) -> bool:
    """Whether an expression is certainly zero."""
    return expr is number(0.0) or scalar_value(expr) == 0.0
