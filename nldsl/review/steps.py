"""One write, seen along the input of one weight: how much it keeps, and how much it takes away."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

from nldsl.calculus import (
    Expr,
    TermClass,
    build,
    gate_expression,
    substitute,
    symbol,
    update_class,
)
from nldsl.calculus.affine import scalar_value
from nldsl.calculus.differentiate import WeightGradient
from nldsl.calculus.letters import letter
from nldsl.calculus.lift import value_symbol
from nldsl.calculus.memo import by_identity
from nldsl.calculus.ranges import SQUARE, Interval, range_of
from nldsl.calculus.rules import RuleForm
from nldsl.review.lengths import square_bound
from nldsl.spec.program import Apply, Block, Memory, Read, Term, Update, Value, Write

UNBOUNDED = frozenset(
    {"linear", "readout", "conv", "embed", "head", "norm", "layernorm", "weight", "position", "add_position"}
)
"""Operations that give any number; of anything else that ends the analysis nothing is known."""


@dataclass(frozen=True)
class Step:
    """What a write does along the input `z` of one weight: `W' z = (keep - pull) W z - push W_0 z`.

    `pull` is what the rule itself erases, `push` the gradient's share of the prediction, at the base state
    `W_0`: that of the token itself, or one up to `chunk` tokens old.  With `momentum` the push goes through
    `m' = momentum m - push W_0 z`.  `gates` maps the symbols of gates and rates to what the block
    computes them from; `rates` are those that the rule takes, `fixed` are its rates that are numbers.
    `known` are ranges the calculus cannot see, such as that of `||z||^2`, whose symbol is `square`.
    """

    weight: str
    keep: Expr
    pull: Expr
    push: Expr
    square: Expr
    length: float
    fed_by_key: bool
    chunk: int
    momentum: Expr | None
    gates: dict[Expr, Expr]
    rates: dict[Expr, Value]
    fixed: tuple[tuple[str, float], ...] = ()
    known: dict[Expr, Interval] = field(default_factory=dict)
    understood: bool = True
    """Whether every number in it has a range that is known to be the true one."""

    @property
    def factor(self) -> Expr:
        """What the memory's answer at `z` is multiplied by if the gradient is that of the token itself."""
        return build("sub", build("sub", self.keep, self.pull), self.push)

    @property
    def stay(self) -> Expr:
        """The same without the gradient."""
        return build("sub", self.keep, self.pull)

    def range_words(self, expr: Expr) -> str:
        """`between 0 and 2`, for the author."""
        found = range_of(expr, self.known)
        if math.isinf(found.low) and math.isinf(found.high):
            return "any number"
        if math.isinf(found.high):
            return f"above {found.low:g}, without bound"
        return f"between {found.low:g} and {found.high:g}" if found.known else f"below {found.high:g}"

    def bound(self, expr: Expr) -> Expr:
        """`expr` over what the block computes its gates from."""
        return substitute(expr, self.gates)


@by_identity(32)
def steps_of(block: Block, memory: Memory, write: Write) -> tuple[Step, ...]:
    """The step of every weight whose rule has a closed form; nothing for writes no form covers."""
    return tuple(_steps(block, memory, write))


def _steps(block: Block, memory: Memory, write: Write) -> Iterator[Step]:
    if write.append or write.project or write.at_commit or len(write.terms) != 1 or memory.function is None:
        return
    term = write.terms[0]
    if term.window > 1 or term.weight is not None:
        return
    found = update_class(memory, write).terms[0]
    if found.gradient is None:
        return
    scale = scaling(block, memory, write)
    for grad, analysis in zip(found.gradient.gradients, found.rules, strict=True):
        if analysis.form is not None and grad.x is not None:
            yield _step(block, write, found, grad, analysis.form, scale)


def scaling(block: Block, memory: Memory, write: Write) -> Value | None:
    """The gate of the one `S *= gate` that stands above the one write of a memory."""
    scales = [s for s in block.body if isinstance(s, Update) and s.memory == memory.name and s.op == "scale"]
    writes = [s for s in block.body if isinstance(s, Write) and s.memory == memory.name]
    if len(scales) != 1 or len(writes) != 1:
        return None
    return scales[0].value if block.body.index(scales[0]) < block.body.index(write) else None


class _Gates:
    """Symbols for the gates of one write, as the author calls them."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.made: dict[Expr, Expr] = {}
        self.values: dict[Expr, Value] = {}

    def of(self, value: Value) -> Expr:
        """The symbol of a gate, or its number if it is one."""
        inside = gate_expression(self.block, value)
        if scalar_value(inside) is not None:
            return inside
        made = symbol(letter(self.block, value), role="gate")
        self.made[made] = inside
        self.values[made] = value
        return made


def _step(
    block: Block, write: Write, found: TermClass, grad: WeightGradient, form: RuleForm, scale: Value | None
) -> Step:
    assert found.gradient is not None
    term = write.terms[0]
    gates = _Gates(block)
    arguments = _arguments(term, gates)
    square = build("dot", form.x, form.x)
    slope = _slope(found, grad)
    rate = form.rate if form.momentum is None else build("mul", form.momentum.rate, form.momentum.read)
    push = build("mul", _times(substitute(rate, arguments), square), slope)
    inside = form.momentum is not None and form.taken is form.momentum.erase
    taken = build("mul", form.taken, form.momentum.read) if inside and form.momentum else form.taken
    pull = _times(substitute(taken, arguments), square)
    keep, rates = substitute(form.keep, arguments), dict(gates.values)
    if write.retain is not None:
        kept = gates.of(write.retain)
        keep = kept if scalar_value(keep) == 1.0 else build("sub", build("add", kept, keep), 1.0)
    if scale is not None:
        factor = gates.of(scale)
        keep, pull, push = (build("mul", factor, e) for e in (keep, pull, push))
    fed = grad.x is found.gradient.key
    length = square_bound(block, term.key) if fed else math.inf
    known = {square: Interval(0.0, length, high_open=math.isinf(length))}
    places = (s.out for s in block.body if isinstance(s, Apply) and s.op == "position")
    known |= {value_symbol(place, "value"): SQUARE for place in places}
    return Step(
        weight=grad.name,
        keep=keep,
        pull=pull,
        push=push,
        square=square,
        length=length,
        fed_by_key=fed,
        chunk=write.base_every,
        momentum=None if form.momentum is None else substitute(form.momentum.beta, arguments),
        gates=gates.made,
        rates=rates,
        fixed=tuple((n, float(v)) for n, v in term.rule.static if n in ("lr", "rate") and _is_number(v)),
        known=known,
        understood=all(_understood(block, e) for e in gates.made.values()),
    )


def _arguments(term: Term, gates: _Gates) -> dict[Expr, Expr]:
    """The symbols of the rule's arguments, as the block computes them."""
    found: dict[Expr, Expr] = {}
    for name, value in term.rule.arguments:
        inner = next((v for v in term.rule.function.inputs if v.name == name), value)
        for seen in (value, inner):
            found[symbol(name, seen.shape, seen.kind, role="argument")] = gates.of(value)
        found[symbol(name, role="argument")] = gates.of(value)
    return found


def _slope(found: TermClass, grad: WeightGradient) -> Expr | float:
    """How much of the prediction the gradient at this weight's output has; zero where that is unknown."""
    if found.slope is None or found.gradient is None:
        return 0.0
    if found.linear is not None:
        return build("mul", found.slope, build("mul", found.linear.scale, found.linear.scale))
    return found.slope if grad.dy is found.gradient.delta else 0.0


def _times(rate: Expr, square: Expr) -> Expr:
    """`rate * square` as one fraction, so that `eta z^2 / (1 + eta z^2)` is seen to stay below one."""
    if rate.op == "div":
        return build("div", _times(rate.args[0], square), rate.args[1])
    return build("mul", rate, square)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _understood(block: Block, expr: Expr) -> bool:
    """Whether every value the analysis stops at is one that takes all numbers."""
    makers = {s.out.name: s for s in block.body if isinstance(s, Apply | Read)}

    def good(e: Expr) -> bool:
        if e.op != "symbol":
            return all(good(a) for a in e.args)
        maker = makers.get(e.name)
        return isinstance(maker, Read) or (isinstance(maker, Apply) and maker.op in UNBOUNDED)

    return good(expr)
