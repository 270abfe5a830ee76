"""The emitted function of a rule that looks at the inputs of a linear layer."""

from __future__ import annotations

from nldsl.emit.nodes import FunctionDef, Parameter, Statement, name, returns
from nldsl.lowerings.exprs import ExprRows
from nldsl.lowerings.scope import Imports, Names
from nldsl.plan.rule_rows import RATE, RowsPlan


def rows_function(plan: RowsPlan, imports: Imports, taken: frozenset[str]) -> FunctionDef:
    """`rows(x, y, dy, share, *arguments)`: what takes the place of `dy` in `dy^T x`."""
    names = Names(taken)
    first = [names.of(n) for n in ("x", "y", "dy", "share")]
    arguments = [(names.of(inside), inside, spoken.name) for inside, spoken in plan.rule.arguments]
    body: list[Statement] = []
    rows = ExprRows(imports, names, body)
    rows.bind("x", name("x"), "rule")
    for local, inside, _ in arguments:
        rows.bind(inside, name(local), "argument")
    rows.count([plan.erase, plan.rate])
    x, y, dy, share = map(name, first)
    lr = name(next(local for local, _, spoken in arguments if spoken == RATE))
    pulled = rows.write(plan.rate) * dy
    if plan.erase.value != 0.0:
        pulled = rows.write(plan.erase) * share * y + pulled
    doc = (
        f"What `{plan.rule.name}` puts in place of `dy`, row by row: x `[N, in]`, y and dy `[N, out]`, "
        "share 1 / N."
    )
    annotated = tuple(Parameter(p, name("Tensor")) for p in (*first, *(local for local, _, _ in arguments)))
    return FunctionDef("rows", annotated, (*body, returns(pulled / lr)), doc, name("Tensor"))
