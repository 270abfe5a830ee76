"""Rules that look at the inputs of a linear layer: where one product in the backward pass says it all.

A rule that asks for `x` or `dy` is applied to every row of a layer, with the row's own gradient `g = dy x^T`;
its memories and the weight become the mean of what the rows make of them.  Where rows enter once, as
`F (e y + r dy) x^T` with `y = W x` and `F` the same for all (Eq. 56-57: `F = lr`), the mean is one product:
`G = sum_t (e_t / N y_t + r_t dy_t) x_t^T` takes the place of the gradient, and the rest is an ordinary rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from nldsl.calculus.expression import Expr, number, symbol, symbols
from nldsl.calculus.lift import value_symbol
from nldsl.calculus.simplify import apply, build, total
from nldsl.catalog.primitive import ContractError
from nldsl.catalog.values import Kind, Shape
from nldsl.plan.rule_fold import folded
from nldsl.spec.program import Apply, Rule, Value

SEEDS = frozenset({"g", "x", "dy"})
Factors = tuple[tuple[str, int], ...]
"""Scalars by name with their exponents, 1 or -1."""


@dataclass(frozen=True)
class RowsPlan:
    """What takes the place of `dy`: `erase y / N + rate dy`, row by row; both depend on `x` and arguments."""

    rule: Rule
    erase: Expr
    rate: Expr


@dataclass(frozen=True)
class Fused:
    """The plan of the rows, and the rule that is left: `g` stands for what the rows give."""

    rows: RowsPlan
    rest: Rule


@dataclass(frozen=True)
class _Term:
    """`sign * shared * rowed * side x^T`, `side` being `y` or `dy`."""

    side: str
    sign: int = 1
    shared: Factors = ()
    rowed: Factors = ()


class NotOneProductError(Exception):
    """The rows of a rule are more than one product; the text says why."""


def looks_at_rows(rule: Rule) -> bool:
    """Whether a rule asks for the input or the output gradient of a linear layer."""
    return any(v.name in ("x", "dy") for v in rule.function.inputs)


def fuse_rows(rule: Rule, shape: Shape) -> Fused:
    """The rows as one product; raises `NotOneProductError` for a rule that needs each of them."""
    rule = _simplified(rule)
    parts = _Parts(rule)
    leaves = {leaf.out.name: leaf for out in rule.function.outputs for leaf in parts.leaves(out.name)}
    if not leaves:
        raise NotOneProductError(f"what rows give rule `{rule.name}` is nowhere used")
    if len(leaves) > 1:
        raise NotOneProductError(f"rows enter rule `{rule.name}` in {len(leaves)} ways")
    (leaf,) = leaves.values()
    terms = parts.terms(leaf.out.name)
    assert terms is not None
    front = _front(terms)
    values = _values(rule, shape)
    rate, erase = (
        total([_coefficient(t, front, values) for t in terms if t.side == side]) or number(0.0)
        for side in ("dy", "y")
    )
    known = {"x", *(name for name, _ in rule.arguments)}
    strange = sorted({s.name for e in (rate, erase) for s in symbols(e)} - known)
    if strange:
        raise NotOneProductError(f"what a row counts for in rule `{rule.name}` depends on `{strange[0]}`")
    return Fused(RowsPlan(rule, erase, rate), _rest(rule, leaf, front))


def _simplified(rule: Rule) -> Rule:
    """The rule with its arithmetic on constants done: `e ** (2 - 1)`, as gradients have it, is `e`."""
    function = rule.function
    found = folded(function.body)
    constants = tuple(
        Apply(Value(name, (), "scalar"), "constant", (), (("value", value),))
        for name, value in found.literals.items()
    )
    outputs = tuple(found.same.get(v.name, v) for v in function.outputs)
    return replace(rule, function=replace(function, body=(*constants, *found.body), outputs=outputs))


class _Parts:
    """The statements of a rule, and which of them differ from row to row."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.made = {s.out.name: s for s in rule.function.body}
        self.means = {v.name for v in rule.function.outputs[1:]}
        self.rowed = set(SEEDS)
        for s in rule.function.body:
            # An expansion takes the shape of its second operand, and nothing else.
            if any(self.differs(a.name) for a in (s.args[:1] if s.op == "expand_last" else s.args)):
                self.rowed.add(s.out.name)

    def differs(self, name: str) -> bool:
        """Whether a value that is used differs from row to row; a memory is one for all rows."""
        return name in self.rowed and name not in self.means

    def leaves(self, name: str) -> Iterator[Apply]:
        """Where rows enter a value: below sums and factors that are the same for all rows."""
        step = self.made.get(name)
        if step is None or name not in self.rowed:
            return
        if self.terms(name) is not None:
            yield step
            return
        rowed = [a for a in step.args if self.differs(a.name)]
        sums = step.op in ("add", "sub", "neg")
        scaled = step.op == "mul" or (step.op == "div" and rowed == [step.args[0]])
        if not (sums or scaled and len(rowed) == 1) or any(a.shape != step.out.shape for a in rowed):
            raise NotOneProductError(f"`{step.op}` in rule `{self.rule.name}` needs each row")
        for a in rowed:
            yield from self.leaves(a.name)

    def terms(self, name: str) -> list[_Term] | None:
        """The value as a sum of `coefficient * side x^T`, `None` if it is something else."""
        if name in ("g", "dy"):
            return [_Term("dy")]
        step = self.made.get(name)
        if step is None or name not in self.rowed:
            return None
        names = [a.name for a in step.args]
        if step.op == "outer":
            return self.side(names[0]) if names[1] == "x" else None
        return self.combined(step, self.terms)

    def side(self, name: str) -> list[_Term] | None:
        """A vector as a sum of `coefficient * side`."""
        step = self.made.get(name)
        if name == "dy":
            return [_Term("dy")]
        if step is None or name not in self.rowed:
            return None
        if step.op == "matmul":
            return [_Term("y")] if [a.name for a in step.args] == ["W", "x"] else None
        return self.combined(step, self.side)

    def combined(self, step: Apply, inner: Callable[[str], list[_Term] | None]) -> list[_Term] | None:
        """A sum or a scaled value of the same kind."""
        if step.op in ("add", "sub", "neg"):
            signs = {"add": (1, 1), "sub": (1, -1), "neg": (-1,)}[step.op]
            signed: list[_Term] = []
            for a, sign in zip(step.args, signs, strict=True):
                found = inner(a.name) if self.differs(a.name) else None
                if found is None:
                    return None
                signed += [replace(t, sign=t.sign * sign) for t in found]
            return signed
        if step.op not in ("mul", "div") or not step.out.shape:
            return None
        left, right = (self.number(a) for a in step.args)
        first = step.op == "mul" and left is not None
        number, scaled = (left, step.args[1]) if first else (right, step.args[0])
        if number is None or not self.differs(scaled.name):
            return None
        terms = inner(scaled.name)
        sign, factors = self.factors(number.name)
        if step.op == "div":
            factors = tuple((n, -e) for n, e in factors)
        return None if terms is None else [self.scaled(t, sign, factors) for t in terms]

    def number(self, value: Value) -> Value | None:
        """The number that a value is, or that all its elements are."""
        step = self.made.get(value.name)
        while value.shape and step is not None and step.op == "expand_last":
            value = step.args[0]
            step = self.made.get(value.name)
        return value if not value.shape else None

    def scaled(self, term: _Term, sign: int, factors: Factors) -> _Term:
        """A term with more factors."""
        shared = tuple(f for f in factors if not self.differs(f[0]))
        rowed = tuple(f for f in factors if self.differs(f[0]))
        return _Term(term.side, term.sign * sign, (*term.shared, *shared), (*term.rowed, *rowed))

    def factors(self, name: str) -> tuple[int, Factors]:
        """Sign and factors of a scalar; what is the same for all rows is not taken apart."""
        step = self.made.get(name)
        if step is None or not self.differs(name) or step.op not in ("mul", "div", "neg"):
            return 1, ((name, 1),)
        sign, found = self.factors(step.args[0].name)
        if step.op == "neg":
            return -sign, found
        more, others = self.factors(step.args[1].name)
        power = 1 if step.op == "mul" else -1
        return sign * more, (*found, *((n, e * power) for n, e in others))


def _front(terms: list[_Term]) -> Factors:
    """The factor of the gradient that is the same for all rows: what the rest of the rule multiplies by."""
    sides = [t.shared for t in terms if t.side == "dy"] or [t.shared for t in terms]
    return sides[0] if all(sorted(s) == sorted(sides[0]) for s in sides) else ()


def _coefficient(term: _Term, front: Factors, values: Mapping[str, Expr]) -> Expr:
    """What a term counts for beside the factor in front."""
    left = list(term.shared)
    for factor in front:
        if factor not in left:
            raise NotOneProductError(f"its terms have no common factor `{factor[0]}`")
        left.remove(factor)
    over = [values[n] for n, e in (*left, *term.rowed) if e > 0]
    under = [values[n] for n, e in (*left, *term.rowed) if e < 0]
    made = number(float(term.sign))
    for expr in over:
        made = build("mul", made, expr)
    for expr in under:
        made = build("div", made, expr)
    return made


def _values(rule: Rule, shape: Shape) -> dict[str, Expr]:
    """The scalars and vectors of a rule as expressions; what is not one is left out."""
    arguments = {name for name, _ in rule.arguments}
    made = {
        v.name: value_symbol(v, "argument" if v.name in arguments else "rule") for v in rule.function.inputs
    }
    made["x"] = symbol("x", shape[1:], "vector", role="rule")
    made["dy"] = symbol("dy", shape[:1], "vector", role="rule")
    for step in rule.function.body:
        try:
            made[step.out.name] = apply(
                step.op, tuple(made[a.name] for a in step.args), dict(step.options), 0
            )
        except (KeyError, ContractError):
            continue
    return made


def _rest(rule: Rule, leaf: Apply, front: Factors) -> Rule:
    """The rule with `front * g` in place of what the rows gave."""
    function = rule.function
    g = Value("g", leaf.out.shape, leaf.out.kind)
    body: list[Apply] = []
    for step in function.body:
        if step.out.name != leaf.out.name:
            body.append(step)
            continue
        one = Value(f"{leaf.out.name}_one", (), "scalar")
        if not front:
            body.append(Apply(one, "constant", (), (("value", 1),)))
        now = g
        for i, (name, power) in enumerate(front or ((one.name, 1),)):
            factor, op = Value(name, (), "scalar"), "mul" if power > 0 else "div"
            last = i == max(len(front) - 1, 0)
            out = leaf.out if last else replace(leaf.out, name=f"{leaf.out.name}_{op}_{i}")
            body.append(Apply(out, op, (factor, now) if power > 0 else (now, factor)))
            now = out
    kept = tuple(v for v in function.inputs if v.name not in ("x", "dy", "g"))
    made = replace(function, inputs=(*kept[:1], g, *kept[1:]), body=tuple(body))
    return replace(rule, function=made)


def retyped(rule: Rule, old: Shape, new: Shape) -> Rule:
    """The rule with another shape in place of `old`: what elements do by themselves, other weights do too."""
    kind: Kind = "matrix" if len(new) == 2 else "vector"

    def typed(value: Value) -> Value:
        return replace(value, shape=new, kind=kind) if value.shape == old else value

    def all_typed(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(map(typed, values))

    f = rule.function
    body = tuple(replace(s, out=typed(s.out), args=all_typed(s.args)) for s in f.body)
    made = replace(f, inputs=all_typed(f.inputs), body=body, outputs=all_typed(f.outputs))
    return replace(rule, function=made)
