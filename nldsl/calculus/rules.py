"""What an update rule does to a weight, as a closed form."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from nldsl.calculus import polynomial as poly
from nldsl.calculus.expression import Expr, depends, number, symbol
from nldsl.calculus.lift import lift, value_symbol
from nldsl.calculus.normal import Basis, normal
from nldsl.calculus.polynomial import Poly, TooLargeError
from nldsl.calculus.simplify import build
from nldsl.catalog.primitive import ContractError
from nldsl.catalog.values import Kind, Shape
from nldsl.spec.program import Rule

_KINDS: dict[int, Kind] = {0: "scalar", 1: "vector", 2: "matrix"}


@dataclass(frozen=True)
class Momentum:
    """A linear filter: `m' = beta * m - rate * g - erase * outer(W @ x, x)`; the weight adds `read * m'`."""

    slot: str
    beta: Expr
    rate: Expr
    read: Expr
    erase: Expr


@dataclass(frozen=True)
class RuleForm:
    """`W' = keep * W - erase * outer(W @ x, x) - rate * g + momentum.read * m'`.

    All coefficients are scalars, free of `W`, `g`, `dy` and the slots; they may contain the rule's
    arguments (role `argument`) and the weight's input `x` (role `rule`).
    """

    keep: Expr
    erase: Expr
    rate: Expr
    momentum: Momentum | None
    x: Expr

    @property
    def taken(self) -> Expr:
        """The erase of the rule, or of its momentum."""
        inside = self.momentum is not None and self.erase.value == 0.0
        return self.momentum.erase if inside and self.momentum is not None else self.erase

    @property
    def adds_only(self) -> bool:
        """Whether what the rule adds to the weight does not depend on it."""
        return self.keep.value == 1.0 and self.taken.value == 0.0


@dataclass(frozen=True)
class RuleAnalysis:
    """The closed form, or `None`: unknown means sequential.  `reason` says why."""

    form: RuleForm | None
    reason: str


@dataclass(frozen=True)
class RuleSymbols:
    """The symbols a rule is written with, for a weight of some shape."""

    weight: Expr
    gradient: Expr
    x: Expr
    dy: Expr
    step: Expr

    @staticmethod
    def of(shape: Shape) -> RuleSymbols:
        """`W`, `g`, `x`, `dy` and `step` for a weight of this shape."""
        out, size = (shape[0], shape[-1]) if len(shape) == 2 else (1, 1)
        kind = _KINDS[len(shape)]
        return RuleSymbols(
            symbol("W", shape, kind, role="rule"),
            symbol("g", shape, kind, role="rule"),
            symbol("x", (size,), "vector", role="rule"),
            symbol("dy", (out,), "vector", role="rule"),
            symbol("step", role="rule"),
        )


def rule_form(rule: Rule, shape: Shape) -> RuleAnalysis:
    """The closed form of one application of `rule` to a weight of this shape.

    Writes the new weight as a scalar times the old one, minus an erase of rank one along its input,
    minus a rate times the gradient; one slot may be a linear filter of gradients.
    """
    if any(slot.clock is not None for slot in rule.slots):
        return RuleAnalysis(None, f"a memory of rule `{rule.name}` has a clock of its own")
    s = RuleSymbols.of(shape)
    try:
        outputs, slots = lifted(rule, s, shape)
    except KeyError as missing:
        return RuleAnalysis(
            None, f"rule `{rule.name}` asks for {missing.args[0]}, which this weight does not have"
        )
    except ContractError as refused:
        return RuleAnalysis(None, f"rule `{rule.name}` does not fit this weight: {refused}")
    if len(slots) > 1:
        return RuleAnalysis(None, f"rule `{rule.name}` keeps {len(slots)} memories of its own")
    moving = (s.weight, s.gradient, s.dy, *(e for pair in slots for e in pair))
    return form_of(rule.name, outputs, slots, s, moving)


def leaves_weight(rule: Rule, shape: Shape) -> bool:
    """Whether the rule certainly never moves a weight of this shape: `gd(lr = 0)`.

    Slots start at zero, so a filter that takes nothing in adds nothing.
    """
    s = RuleSymbols.of(shape)
    try:
        outputs, _ = lifted(rule, s, shape)
    except (KeyError, ContractError):
        return False
    if outputs[0] is s.weight:
        return True
    form = rule_form(rule, shape).form
    if form is None or (form.keep.value, form.erase.value, form.rate.value) != (1.0, 0.0, 0.0):
        return False
    m = form.momentum
    return m is None or (m.rate.value == 0.0 and m.erase.value == 0.0)


def lifted(
    rule: Rule, s: RuleSymbols, shape: Shape, cut: bool = True
) -> tuple[tuple[Expr, ...], list[tuple[Expr, Expr]]]:
    """New weight and slots; each slot as (old, new) symbols, where the weight uses the new one.

    Without `cut` everything is written in what stands before the step.
    """
    known = {"W": s.weight, "g": s.gradient, "step": s.step}
    if len(shape) == 2:
        known |= {"x": s.x, "dy": s.dy}
    kind = _KINDS[len(shape)]
    slots = [
        (symbol(t.name, shape, kind, role="slot"), symbol(t.name + "'", shape, kind, role="slot"))
        for t in rule.slots
    ]
    arguments = {name for name, _ in rule.arguments}
    for value in rule.function.inputs:
        if value.name in arguments:
            known[value.name] = value_symbol(value, "argument")
    old = {t.name: pair[0] for t, pair in zip(rule.slots, slots, strict=True)}
    outs = [v.name for v in rule.function.outputs[1:]]
    new = {name: pair[1] for name, pair in zip(outs, slots, strict=True) if cut and name not in old}
    wanted = {v.name for v in rule.function.inputs}
    outputs = lift(rule.function, {n: e for n, e in (known | old).items() if n in wanted}, new)
    return outputs, slots


def form_of(
    name: str,
    outputs: tuple[Expr, ...],
    slots: list[tuple[Expr, Expr]],
    s: RuleSymbols,
    moving: tuple[Expr, ...],
) -> RuleAnalysis:
    """Match the new weight, then the slot; no coefficient may hold what is `moving`."""
    main = coefficients(outputs[0], moving, s)
    zero = number(0.0)
    expected = {s.weight, s.gradient, s.x, *(new for _, new in slots)}
    if main is None or set(main) - expected:
        return RuleAnalysis(None, f"rule `{name}` is not linear in the weight, its gradient and its memory")
    momentum = None
    if slots:
        old, new = slots[0]
        inner = coefficients(outputs[1], moving, s)
        if inner is None or set(inner) - {old, s.gradient, s.x}:
            return RuleAnalysis(None, f"the memory of rule `{name}` is not a linear filter of gradients")
        if s.x in inner and s.x in main:
            return RuleAnalysis(None, f"rule `{name}` erases in its memory and beside it")
        rate, erase = (build("neg", inner.get(part, zero)) for part in (s.gradient, s.x))
        momentum = Momentum(old.name, inner.get(old, zero), rate, main.get(new, zero), erase)
    form = RuleForm(
        keep=main.get(s.weight, zero),
        erase=build("neg", main.get(s.x, zero)),
        rate=build("neg", main.get(s.gradient, zero)),
        momentum=momentum,
        x=s.x,
    )
    return RuleAnalysis(form, f"rule `{name}` is {_words(form)}")


def coefficients(expr: Expr, moving: tuple[Expr, ...], s: RuleSymbols) -> dict[Expr, Expr] | None:
    """The scalar coefficient of each moving tensor; that of the erase term is under `x`.

    Erases of what another state `Z` has stored are under `Z @ x`.
    """
    try:
        form = normal(expr)
    except TooLargeError:
        return None
    found: dict[Expr, Poly] = {}
    for basis, coefficient in form.terms.items():
        what = _tensor(basis, s, moving)
        if what is None or any(depends(a, moving) for p in coefficient for a, _ in p):
            return None
        found[what] = poly.plus(found.get(what, {}), coefficient)
    return {what: poly.to_expr(c) for what, c in found.items() if c}


def _tensor(basis: Basis, s: RuleSymbols, moving: tuple[Expr, ...]) -> Expr | None:
    """Which tensor a basis element is: the weight, the gradient, a slot, or the erase term (`x`)."""
    atoms, left, right = basis
    plain = atoms if len(s.weight.shape) == 2 else left
    if len(plain) == 1 and plain[0][1] == 1 and basis in ((plain, (), ()), ((), plain, ())):
        return plain[0][0] if plain[0][0] in moving and plain[0][0] not in (s.dy, s.step) else None
    if atoms or right != ((s.x, Fraction(1)),) or len(left) != 1 or left[0][1] != 1:
        return None
    if left[0][0] is s.dy:
        return s.gradient
    seen = left[0][0]
    if seen is build("matmul", s.weight, s.x):
        return s.x
    return seen if any(seen is build("matmul", z, s.x) for z in moving if z.kind == "matrix") else None


def _words(form: RuleForm) -> str:
    """The form in words, for a reason."""
    if form.momentum is not None:
        erases = form.momentum.erase.value != 0.0
        return "a linear filter of gradients and erases" if erases else "a linear filter of gradients"
    if form.erase.value == 0.0:
        return "plain gradient descent" if form.keep.value == 1.0 else "gradient descent with decay"
    return "gradient descent with an erase of rank one along its input"
