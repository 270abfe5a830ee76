"""Rules that divide by the size of a gradient, where that is one outer product: a rate of its two rows.

With `g = dy x^T` the sum of all squares is `||dy||^2 ||x||^2`, so `W - lr g / ||g||` is plain gradient
descent at a rate that the rows tell.  That is linear where `dy` is held at a base, and not where it follows
the weight.
"""

from __future__ import annotations

from nldsl.calculus.expression import Expr, depends, number, symbols, walk
from nldsl.calculus.rules import RuleForm, RuleSymbols, form_of, lifted
from nldsl.calculus.simplify import build
from nldsl.catalog.primitive import ContractError
from nldsl.catalog.values import Shape
from nldsl.spec.program import Rule

_FOLDS = frozenset({"sum", "mean"})


def sized_form(rule: Rule, shape: Shape) -> RuleForm | None:
    """The closed form of a rule over rows `x` and `dy` of its gradient; `None` if it has none.

    Only where the gradient is one outer product, held at a base: coefficients hold both rows (role `rule`).
    """
    if len(shape) != 2 or len(rule.slots) > 1 or any(t.clock is not None for t in rule.slots):
        return None
    s = RuleSymbols.of(shape)
    try:
        outputs, slots = lifted(rule, s, shape)
    except (KeyError, ContractError):
        return None
    written = tuple(_sized(e, s) for e in outputs)
    if all(a is b for a, b in zip(written, outputs, strict=True)):
        return None
    moving = (s.weight, s.gradient, *(e for pair in slots for e in pair))
    return form_of(rule.name, written, slots, s, moving).form


def looks_at_gradient(*numbers: Expr | None) -> bool:
    """Whether a coefficient of a rule is made of the gradient's own rows."""
    return any((s.role, s.name) == ("rule", "dy") for e in numbers if e is not None for s in symbols(e))


def _sized(expr: Expr, s: RuleSymbols) -> Expr:
    """Sums of all squares of the gradient as products of two."""
    done: dict[Expr, Expr] = {}
    for node in walk([expr]):
        size = _size(node, s) if depends(node, [s.gradient]) else None
        if size is not None:
            done[node] = size
        elif node.args and not node.owned:
            args = tuple(done[a] for a in node.args)
            same = all(a is b for a, b in zip(args, node.args, strict=True))
            done[node] = node if same else build(node.op, *args, **dict(node.options))
        else:
            done[node] = node
    return done[expr]


def _size(node: Expr, s: RuleSymbols) -> Expr | None:
    """`sum(sum(g ** 2))`, or with means, as `||dy||^2 ||x||^2`."""
    if node.op not in _FOLDS or node.shape or node.args[0].op not in _FOLDS:
        return None
    squared = node.args[0].args[0]
    power = squared.op == "pow" and squared.args[0] is s.gradient and squared.args[1].value == 2.0
    product = squared.op == "mul" and squared.args == (s.gradient, s.gradient)
    if not (power or product):
        return None
    rows, columns = s.gradient.shape
    count = (rows if node.op == "mean" else 1) * (columns if node.args[0].op == "mean" else 1)
    whole = build("mul", build("dot", s.dy, s.dy), build("dot", s.x, s.x))
    return whole if count == 1 else build("mul", number(1.0 / count), whole)
