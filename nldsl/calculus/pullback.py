"""The way back through the gradient of a memory: derived once more, so that no tape is needed at run time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.calculus.differentiate import MapGradient, WeightGradient, pulled
from nldsl.calculus.expression import Expr, depends, symbol, symbols, walk
from nldsl.calculus.simplify import build, substitute, total
from nldsl.library import PRIMITIVES


@dataclass(frozen=True)
class RowTerm:
    """What a row adds to the gradient of a weight: `outer(dy, x)`, or `dy` itself for a bias."""

    dy: Expr
    x: Expr | None


@dataclass(frozen=True)
class Pullback:
    """Results of a function of rows and weights, and the gradients that come back through it.

    `seeds` are symbols for the gradients at `results`; `rows` the gradients at the inputs (`None`: nothing
    comes back); `weights` what every row adds to the gradient of every weight.  `kept`: what both ways ask
    for, results or values on the way to them that are no element-wise function of the rest.
    """

    results: tuple[Expr, ...]
    seeds: tuple[Expr, ...]
    inputs: tuple[Expr, ...]
    rows: tuple[Expr | None, ...]
    weights: tuple[tuple[RowTerm, ...], ...]
    kept: tuple[Expr, ...]


def pullback(results: Sequence[Expr], inputs: Sequence[Expr], weights: Sequence[Expr]) -> Pullback | str:
    """The way back through `results`, or why there is none of row by row products.

    Errors: `NotDifferentiableError` if a primitive on the way has no gradient.

    Example:
        >>> from nldsl.calculus.simplify import build
        >>> W, k = symbol("W", (3, 2), "matrix"), symbol("k", (2,), "vector")
        >>> found = pullback([build("matmul", W, k)], [k], [W])
        >>> [str(r) for r in found.rows], [str(t.dy) for t in found.weights[0]]
        (['d_1 @ W'], ['d_1'])
    """
    seeds = tuple(symbol(f"d_{i + 1}", r.shape, r.kind, r.axes, role="seed") for i, r in enumerate(results))
    found = pulled(list(zip(results, seeds, strict=True)), (*inputs, *weights))
    rows = tuple(total(found[i]) for i in inputs)
    if any(r is not None and r.shape != i.shape for r, i in zip(rows, inputs, strict=True)):
        return "what comes back to its rows has another shape"
    outer = []
    for weight in weights:
        terms = _terms(weight, found[weight])
        if terms is None:
            return f"the gradient at `{weight.name}` is no sum of outer products on the way back"
        outer.append(terms)
    made = [
        *(r for r in rows if r is not None),
        *(e for ts in outer for t in ts for e in (t.dy, t.x) if e is not None),
    ]
    if any(not depends(e, [*seeds, *inputs]) for e in (*results, *made)):
        return "something on the way back is the same for all rows"
    return Pullback(tuple(results), seeds, tuple(inputs), rows, tuple(outer), _kept(results, made))


def _terms(weight: Expr, parts: list[Expr]) -> tuple[RowTerm, ...] | None:
    if len(weight.shape) == 1:
        added = total(parts)
        fits = added is None or added.shape == weight.shape
        return None if not fits else () if added is None else (RowTerm(added, None),)
    terms = [p for p in parts if p.op == "outer"]
    if len(terms) < len(parts) or any(len(t.shape) != 1 for p in terms for t in p.args):
        return None
    return tuple(RowTerm(*p.args) for p in terms)


def _kept(results: Sequence[Expr], made: Sequence[Expr]) -> tuple[Expr, ...]:
    """What is computed for `results` and asked for on the way to `made`."""
    forward, ends = set(walk(results)), set(results)
    found: set[Expr] = set()
    seen: set[Expr] = set()
    stack = list(reversed(made))
    while stack:
        expr = stack.pop()
        if expr in seen:
            continue
        seen.add(expr)
        if expr.args and (expr in ends or (expr in forward and _heavy(expr))):
            found.add(expr)
        else:
            stack.extend(reversed(expr.args))
    return tuple(e for e in walk(results) if e in found)


def _heavy(expr: Expr) -> bool:
    """Whether computing it again costs more than a pass over its rows; a weight's transpose costs nothing."""
    return len(expr.shape) < 2 and not PRIMITIVES[expr.op].elementwise


def answers(found: MapGradient, slow: Sequence[Expr] = ()) -> Pullback | str:
    """The way back through the map, from its answer to its input, the weights and `slow` parameters."""
    return pullback([found.forward], [found.key], (*found.weights, *slow))


def factors(
    found: MapGradient, gains: Sequence[Expr | None] = (), slow: Sequence[Expr] = ()
) -> Pullback | str:
    """The way back through `x, dy` of every weight (`dy` of a bias), to key, target, the weights and `slow`
    parameters of the map.

    `gains`: what every `dy` is multiplied with, in the symbols of a rule: its arguments, which become inputs
    too (see `gain_arguments`), and the input `x` of the weight.
    """
    if any(w.dy is None and len(w.weight.shape) > 1 for w in found.gradients):
        return "a weight whose gradient is not one outer product"
    results = [
        e
        for w, g in zip(found.gradients, gains or [None] * len(found.gradients), strict=True)
        for e in _pair(w, g)
    ]
    if any(len(e.shape) != 1 for e in results):
        return "a gradient that is the same number in every channel"
    return pullback(results, [found.key, found.target, *gain_arguments(gains)], (*found.weights, *slow))


def gain_arguments(gains: Sequence[Expr | None]) -> list[Expr]:
    """The arguments of a rule in its gains, sorted by name; the number `step` of its application is one."""
    asked = [s for g in gains if g is not None for s in symbols(g)]
    found = {s for s in asked if s.role == "argument" or (s.role, s.name) == ("rule", "step")}
    return sorted(found, key=lambda s: s.name)


def _pair(weight: WeightGradient, gain: Expr | None) -> list[Expr]:
    dy = weight.expression if weight.dy is None else weight.dy
    if gain is not None:
        asked = [s for s in symbols(gain) if (s.role, s.name) == ("rule", "x")]
        own = {s: weight.x for s in asked if weight.x is not None}
        dy = build("mul", dy, substitute(gain, own))
    return [dy] if weight.x is None else [weight.x, dy]
