"""The backward pass of a straight-line step, as emitted code: every operation in turn, last one first.

What the gradients need of the step is computed again, but for what was kept, and let go when it is not needed
any more.  Operations have formulas (`adjoint_rules`); a call of a function without one is recorded and
differentiated alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nldsl.emit.nodes import (
    Assign,
    Delete,
    Expression,
    FunctionDef,
    Parameter,
    Statement,
    TupleOf,
    Var,
    assign,
    name,
    returns,
    to_expression,
)
from nldsl.emit.walk import mentioned
from nldsl.lowerings.adjoint import Adjoint
from nldsl.lowerings.adjoint_rules import apply_rule
from nldsl.lowerings.flat import Binding, Flat
from nldsl.lowerings.scope import Imports, Names


def written_back(
    step: FunctionDef,
    functions: Mapping[str, FunctionDef],
    imports: Imports,
    reserved: frozenset[str],
    valid: str,
    constants: frozenset[str] = frozenset(),
) -> tuple[FunctionDef, tuple[Expression, ...]]:
    """`step_back(*arguments, kept, *d_results)`, and the parameters of the module whose gradients it returns.

    `constants` are parameters of the step that no gradient goes through.

    The last parameter of the step is `kept`, the one in front of it `valid`, which has no gradient.  The plan
    asks for it where every statement has a simplest form; `NotFlatError` is a fault of this package.
    """
    flat = Flat(Names(reserved), functions).function(step)
    *given, kept = (p.name for p in step.parameters)
    adjoint = Adjoint(flat, imports, constants | {valid, kept}, kept)
    seeds = [adjoint.names.fresh(f"d_{getattr(r, 'name', 'result')}") for r in flat.results]
    for result, seed in zip(flat.results, seeds, strict=True):
        adjoint.add(result, Var(seed))
    for binding in reversed(flat.bindings):
        if any(t in adjoint.grads for t in binding.targets) and binding.out not in flat.parameters:
            apply_rule(adjoint, binding)
    asked = [*(p for p in given if p not in ("self", valid)), *flat.parameters]
    ending = returns(TupleOf(tuple(to_expression(adjoint.of(p)) for p in asked)))
    body = _with_deletes([*_again(flat, adjoint.body), *adjoint.body, ending])
    arguments = (*step.parameters[:-1], Parameter(kept, name("Any")))
    doc = "The gradients of the step: of its arguments, then of the parameters."
    twin = FunctionDef(
        f"{step.name}_back",
        (*arguments, *(Parameter(s, name("Tensor")) for s in seeds)),
        body,
        doc,
        name("tuple")[name("Any"), ...],
    )
    return twin, tuple(flat.parameters.values())


def _again(flat: Flat, body: Sequence[Statement]) -> list[Statement]:
    """What the gradients need of the step, in its order."""
    needed = set(mentioned(body))
    found: list[Binding] = []
    for binding in reversed(flat.bindings):
        if needed & set(binding.targets):
            found.append(binding)
            needed |= mentioned([binding.value])
    return [assign(list(b.targets) if len(b.targets) > 1 else b.out, b.value) for b in reversed(found)]


def _with_deletes(body: Sequence[Statement]) -> tuple[Statement, ...]:
    """Every name that was assigned goes behind its last use."""
    made = {t for s in body if isinstance(s, Assign) for t in mentioned(s.targets)}
    last = {n: i for i, s in enumerate(body) for n in mentioned([s]) if n in made}
    out: list[Statement] = []
    for i, statement in enumerate(body):
        out.append(statement)
        over = tuple(sorted(n for n, at in last.items() if at == i))
        if over and i + 1 < len(body):
            out.append(Delete(over))
    return tuple(out)
