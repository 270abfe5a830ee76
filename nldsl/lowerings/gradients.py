"""The gradient of an objective at a map, derived at compile time and emitted as one function."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.calculus.differentiate import WeightGradient
from nldsl.calculus.differentiate import gradient as differentiate
from nldsl.calculus.expression import Expr, symbols
from nldsl.emit.nodes import Expression, FunctionDef, Parameter, Starred, Statement, call, name, returns
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.functions import PLACEHOLDER, Functions, slow_parameter_names, tensors
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


def gradient(
    functions: Functions, map_function: Function, objective: Function, rows: bool = False
) -> Gradient:
    """The function for this map and objective; emitted when first asked for.

    `rows`: every gradient as factors row by row, also where it is a sum of several outer products
    (`x_W`, `dy_W`, `x_W_2`, ...) or belongs to a bias (`g_W` of every row).
    """
    found = differentiate(map_function, objective)
    results = tuple(r for w in found.gradients for r in (_factors(w) if rows else _results(w)))
    chosen = functions.emit(
        f"{map_function.name}_{objective.name}_gradient",
        ("gradient", map_function, objective, tuple(r.name for r in results)),
        lambda: _define(functions, results, map_function, objective),
    )
    return Gradient(chosen, tuple(r.name for r in results))


@dataclass(frozen=True)
class _Result:
    """What the function returns under one name; `axis`: along which axis of the weight it runs (0: both)."""

    name: str
    expr: Expr
    weight: str
    axis: int


def _results(weight: WeightGradient) -> list[_Result]:
    if weight.x is not None and weight.dy is not None:
        x = _Result(f"x_{weight.name}", weight.x, weight.name, -1)
        return [x, _Result(f"dy_{weight.name}", weight.dy, weight.name, -2)]
    return [_Result(f"g_{weight.name}", weight.expression, weight.name, 0)]


def _factors(weight: WeightGradient) -> list[_Result]:
    """The same as rows: a bias has one row per token, a matrix one pair of rows per outer product."""
    if len(weight.weight.shape) == 1:
        return [_Result(f"g_{weight.name}", weight.expression, weight.name, -1)]
    out = []
    for i, term in enumerate(weight.outer_terms):
        mark = f"_{i + 1}" if i else ""
        out.append(_Result(f"x_{weight.name}{mark}", term.x, weight.name, -1))
        out.append(_Result(f"dy_{weight.name}{mark}", term.dy, weight.name, -2))
    if weight.general is not None:
        out.append(_Result(f"c_{weight.name}", weight.general, weight.name, 0))
    return out


def _define(
    functions: Functions, wanted: tuple[_Result, ...], map_function: Function, objective: Function
) -> FunctionDef:
    names = Names(functions.locals)
    body: list[Statement] = []
    rows = ExprRows(functions.imports, names, body)
    inputs = [("key", "key"), ("target", "target"), *((w.name, "weight") for w in map_function.weights)]
    arguments = [names.fresh(i) for i, _ in inputs]
    slow = [names.fresh(p) for p in slow_parameter_names(map_function)]
    paths = [(p.path, "parameter") for a in map_function.body for p in a.parameters]
    # A weight may be called `key` too.
    for (symbol, role), argument in zip((*inputs, *paths), (*arguments, *slow), strict=True):
        rows.bind(symbol, name(argument), role)
    rows.count(r.expr for r in wanted)
    results = [_full_size(rows, r) for r in wanted]
    constant = any(r.name.startswith("c_") for r in wanted)
    doc = "\n\n".join(
        (
            f"Gradient of `{objective.name}` at the map `{map_function.name}`, row by row.",
            f"Returns {', '.join(r.name for r in wanted)}: `x_W` is the input of the weight `W`, `dy_W` "
            "the gradient at its output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`."
            + (" `c_W` is a part that every token adds alike." if constant else ""),
        )
    )
    annotated = tuple(Parameter(p, name("Tensor")) for p in (*arguments, *slow))
    return FunctionDef(PLACEHOLDER, annotated, (*body, returns(*results)), doc, tensors(len(results)))


def _full_size(rows: ExprRows, result: _Result) -> Expression:
    """Every result is a batch of rows of the right width, also if its value is the same in all of them."""
    written = rows.write(result.expr)
    weight, key = rows.symbols["weight", result.weight], rows.symbols["key", "key"]
    if result.axis == 0:
        return written if result.expr.shape else written + call("torch.zeros_like", weight)
    if not result.expr.shape:
        size = (Starred(key.attr("shape")[slice(None, -1)]), weight.attr("shape")[result.axis])
        return written + key.method("new_zeros", size)
    if not _batched(result.expr):
        return written + call("torch.zeros_like", key[..., slice(None, 1)])
    return written


def _batched(expr: Expr) -> bool:
    """Whether an expression has the rows of the batch: it depends on the key or the target."""
    return any(s.role in ("key", "target") for s in symbols(expr))
