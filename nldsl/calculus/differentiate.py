"""Reverse mode on expressions: the gradient of a memory's objective, weight by weight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nldsl.calculus.expression import Expr, depends, number, symbols, walk
from nldsl.calculus.lift import lift, value_symbol, weight_symbol
from nldsl.calculus.simplify import ExprBuilder, build, substitute, total
from nldsl.library import PRIMITIVES
from nldsl.spec.program import Function

TOKEN = frozenset({"key", "target"})
"""Roles of the symbols that differ from token to token."""


class NotDifferentiableError(ValueError):
    """A primitive on the way has no vector-Jacobian product; the message names it."""


@dataclass(frozen=True)
class OuterTerm:
    """One summand `outer(dy, x)` of the gradient of a matrix weight."""

    dy: Expr
    x: Expr


@dataclass(frozen=True)
class WeightGradient:
    """The gradient of one weight: `sum(outer(dy, x) for outer_terms) + general`.

    `x` and `dy` are set if the weight is used exactly once, as `W @ x`: then the gradient is
    `outer(dy, x)`, and a rule may ask for both.
    """

    name: str
    weight: Expr
    outer_terms: tuple[OuterTerm, ...]
    general: Expr | None
    x: Expr | None
    dy: Expr | None

    @property
    def constant(self) -> Expr | None:
        """`general` where it is the same for every token: what a penalty on the memory itself adds."""
        token = () if self.general is None else (s for s in symbols(self.general) if s.role in TOKEN)
        return self.general if not any(token) else None

    @property
    def expression(self) -> Expr:
        """The gradient as one expression; a scalar zero if the objective ignores the weight."""
        terms = [build("outer", t.dy, t.x) for t in self.outer_terms]
        return total([*terms, *([self.general] if self.general is not None else [])]) or number(0.0)


@dataclass(frozen=True)
class MapGradient:
    """The inner problem of one token in closed form.

    Symbols: `key`, `target`, the weights by name and slow parameters by path.  `forward` is the map
    at the key, `loss` the objective there, `delta` its gradient with respect to the prediction.
    `objective_delta` is `delta` as a function of the symbol `prediction`.
    """

    key: Expr
    target: Expr
    prediction: Expr
    weights: tuple[Expr, ...]
    forward: Expr
    loss: Expr
    delta: Expr
    objective_delta: Expr
    gradients: tuple[WeightGradient, ...]
    sees_memory: bool
    """The objective depends on the memory itself, not only on its answer."""


def cotangents(output: Expr, wanted: Iterable[Expr], seed: Expr | None = None) -> dict[Expr, list[Expr]]:
    """For each wanted expression, the summands of the gradient of `output` with respect to it.

    `seed` is the gradient at `output`, one if left out (a scalar output).

    Errors: `NotDifferentiableError` naming the primitive without a vector-Jacobian product.
    """
    return pulled([(output, seed if seed is not None else number(1.0))], wanted)


def pulled(outputs: Sequence[tuple[Expr, Expr]], wanted: Iterable[Expr]) -> dict[Expr, list[Expr]]:
    """The same for several outputs, each with the gradient at it: what they share is passed once."""
    targets = tuple(wanted)
    parts: dict[Expr, list[Expr]] = {}
    for output, seed in outputs:
        parts.setdefault(output, []).append(seed)
    for expr in reversed(list(walk(list(parts)))):
        if expr in targets or expr not in parts or not expr.args or not depends(expr, targets):
            continue
        grad = total(parts[expr])
        if grad is None:
            continue
        for arg, cotangent in zip(expr.args, _vjp(expr, grad), strict=True):
            if cotangent is not None and depends(arg, targets):
                parts.setdefault(arg, []).append(_reduced(cotangent, arg))
    return {t: parts.get(t, []) for t in targets}


def _vjp(expr: Expr, grad: Expr) -> tuple[Expr | None, ...]:
    """The library's rule for one node."""
    primitive = PRIMITIVES[expr.op]
    if primitive.vjp is None:
        raise NotDifferentiableError(f"`{expr.op}` has no gradient in closed form")
    return tuple(primitive.vjp(ExprBuilder(), expr.args, expr, grad, dict(expr.options)))


def _reduced(cotangent: Expr, arg: Expr) -> Expr:
    """A cotangent in the shape of its argument: summed where broadcast, expanded where constant."""
    while len(cotangent.shape) > len(arg.shape):
        cotangent = build("sum", cotangent)
    if not cotangent.shape and len(arg.shape) == 1:
        return build("expand_last", cotangent, arg)
    return cotangent


def gradient(map_function: Function, objective: Function) -> MapGradient:
    """The gradient of `objective(map(key), target)` with respect to every weight of the map.

    Errors: `NotDifferentiableError` if a primitive of the map or the objective has no gradient.
    """
    return problem_of(map_function, objective).solved()


@dataclass(frozen=True)
class Problem:
    """The inner problem of one token without its gradient; `abstract`: the objective at a symbol."""

    key: Expr
    target: Expr
    prediction: Expr
    weights: tuple[Expr, ...]
    forward: Expr
    abstract: Expr
    sees_memory: bool

    def solved(self) -> MapGradient:
        """The gradient with respect to every weight.

        Errors: `NotDifferentiableError`.
        """
        prediction, forward, weights = self.prediction, self.forward, self.weights
        slope = total(cotangents(self.abstract, [prediction])[prediction])
        slope = slope if slope is not None else _reduced(number(0.0), prediction)
        delta = _at(slope, prediction, forward)
        through_map = cotangents(forward, weights, delta)
        # In `abstract` the prediction is a symbol, so this is the direct dependence on the memory alone.
        direct = cotangents(self.abstract, weights)
        parts = {w: [*through_map[w], *(_at(d, prediction, forward) for d in direct[w])] for w in weights}
        gradients = tuple(_weight_gradient(w, parts[w], forward) for w in weights)
        return MapGradient(
            self.key,
            self.target,
            prediction,
            weights,
            forward,
            _at(self.abstract, prediction, forward),
            delta,
            slope,
            gradients,
            self.sees_memory,
        )


def problem_of(map_function: Function, objective: Function) -> Problem:
    """The inner problem of one token: map and objective over symbols."""
    weights = tuple(weight_symbol(w.name, w.shape) for w in map_function.weights)
    named = {w.name: s for w, s in zip(map_function.weights, weights, strict=True)}
    key = value_symbol(map_function.inputs[0], "key", "key")
    forward = lift(map_function, {**named, map_function.inputs[0].name: key})[0]
    prediction_value, target_value, *_ = objective.inputs
    prediction = value_symbol(prediction_value, "prediction", "prediction")
    target = value_symbol(target_value, "target", "target")
    context = {target_value.name: target, **_memory_arguments(objective, weights)}
    abstract = lift(objective, {**context, prediction_value.name: prediction})[0]
    sees = bool(objective.weights) or depends(abstract, weights)
    return Problem(key, target, prediction, weights, forward, abstract, sees)


def _at(expr: Expr, at: Expr, value: Expr) -> Expr:
    """`expr` where the symbol `at` is `value`."""
    return substitute(expr, {at: value})


def _memory_arguments(objective: Function, weights: tuple[Expr, ...]) -> dict[str, Expr]:
    """The memory as third argument of an objective: by name, else in the order of the weights."""
    by_name = {w.name: w for w in weights}
    asked = [*objective.inputs[2:], *objective.weights]
    return {v.name: by_name.get(v.name, weights[min(i, len(weights) - 1)]) for i, v in enumerate(asked)}


def _weight_gradient(weight: Expr, parts: list[Expr], forward: Expr) -> WeightGradient:
    """Sort the summands of one weight's gradient into outer products and the rest."""
    outer = tuple(OuterTerm(*p.args) for p in parts if p.op == "outer")
    general = total(p for p in parts if p.op != "outer")
    uses = [e for e in walk([forward]) for a in e.args if a is weight]
    once = len(uses) == 1 and uses[0].op == "matmul" and uses[0].args[0] is weight and len(parts) == 1
    plain = once and len(outer) == 1 and uses[0].kind == "vector" and outer[0].x is uses[0].args[1]
    x, dy = (outer[0].x, outer[0].dy) if plain else (None, None)
    return WeightGradient(weight.name, weight, outer, general, x, dy)
