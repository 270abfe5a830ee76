"""The gradient of an objective at a map, derived at compile time and emitted as one function."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.calculus.differentiate import MapGradient, WeightGradient
from nldsl.calculus.differentiate import gradient as differentiate
from nldsl.calculus.expression import Expr, symbols
from nldsl.emit.nodes import Expression, FunctionDef, Parameter, Statement, name, returns
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.functions import Functions, shapeless, slow_parameter_names, tensors
from nldsl.lowerings.scope import Names
from nldsl.spec.program import Function


@dataclass(frozen=True)
class Gradient:
    """An emitted gradient function `f(key, target, weights..., slow parameters...)`.

    `results` names what it returns, in order: `x_W`, `dy_W` for a weight used once as `W @ x`
    (its gradient is `dy x^T`, summed over the rows), else the gradient itself, `g_W`.
    """

    function: Expression
    results: tuple[str, ...]


def gradient(functions: Functions, map_function: Function, objective: Function) -> Gradient:
    """The function for this map and objective; emitted when first asked for."""
    found = differentiate(map_function, objective)
    wanted = [r for w in found.gradients for r in _results(w)]
    key = ("gradient", shapeless(map_function), shapeless(objective))
    if key not in functions.known:
        chosen = functions.names.fresh(f"{map_function.name}_{objective.name}_gradient")
        functions.known[key] = chosen
        functions.definitions.append(_define(functions, chosen, found, map_function, objective))
    return Gradient(name(functions.known[key]), tuple(r for r, _ in wanted))


def _results(weight: WeightGradient) -> list[tuple[str, Expr]]:
    if weight.x is not None and weight.dy is not None:
        return [(f"x_{weight.name}", weight.x), (f"dy_{weight.name}", weight.dy)]
    return [(f"g_{weight.name}", weight.expression)]


def _define(
    functions: Functions, chosen: str, found: MapGradient, map_function: Function, objective: Function
) -> FunctionDef:
    names = Names(functions.locals)
    body: list[Statement] = []
    rows = ExprRows(functions.imports, names, body)
    inputs = ["key", "target", *(w.name for w in map_function.weights)]
    arguments = [names.of(i) for i in inputs]
    slow = [names.fresh(p) for p in slow_parameter_names(map_function)]
    paths = [p.path for a in map_function.body for p in a.parameters]
    for symbol, argument in zip((*inputs, *paths), (*arguments, *slow), strict=True):
        rows.bind(symbol, name(argument))
    wanted = [pair for w in found.gradients for pair in _results(w)]
    rows.count(e for _, e in wanted)
    results = [_full_size(rows, e, found) for _, e in wanted]
    doc = (
        f"Gradient of `{objective.name}` at `{map_function.name}`: for each weight `W` its inputs `x` and the "
        "gradients `dy` at its outputs, row by row (the gradient of `W` is `dy.mT @ x`)."
    )
    annotated = tuple(Parameter(p, name("Tensor")) for p in (*arguments, *slow))
    return FunctionDef(chosen, annotated, (*body, returns(*results)), doc, tensors(len(results)))


def _full_size(rows: ExprRows, expr: Expr, found: MapGradient) -> Expression:
    """A constant gradient is spread over the rows, so that every result is a batch of rows."""
    written = rows.write(expr)
    if expr.kind != "vector" and not expr.shape:
        return rows.write(found.forward).method("new_full", rows.write(found.forward).attr("shape"), written)
    if expr.kind == "vector" and not _batched(expr):
        return written.method("expand_as", rows.write(found.forward))
    return written


def _batched(expr: Expr) -> bool:
    """Whether an expression has the rows of the batch: it depends on the key or the target."""


    return any(s.name in ("key", "target") for s in symbols(expr))
