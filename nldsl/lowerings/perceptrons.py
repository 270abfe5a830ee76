"""Perceptrons of memories that learn from the task, with the norm in front and the residual, as one call."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from nldsl.emit.nodes import Assign, Expression, Invoke, Literal, Operation, Statement, Var, name
from nldsl.lowerings.prune import reads
from nldsl.spec.program import Function

CALL = "silu_perceptron"
"""The function of the runtime: `W silu(V z)`."""


def is_perceptron(function: Function) -> bool:
    """Whether a map is `W @ silu(V @ z)`, its weights in this order."""
    if len(function.body) != 3 or any(apply.parameters for apply in function.body):
        return False
    into, bend, out = function.body
    if (into.op, bend.op, out.op) != ("matmul", "silu", "matmul"):
        return False
    wanted = [(*function.weights[:1], *function.inputs), (into.out,), (*function.weights[1:], bend.out)]
    return [into.args, bend.args, out.args] == wanted and function.outputs == (out.out,)


def with_surroundings(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """`body` where such calls take the norm of their rows, and the sum of its argument and what they give."""
    used = Counter(v for s in body for v in reads(s))
    out: list[Statement] = []
    for statement in body:
        before = out[-1] if out else None
        joined = _with_residual(before, statement, used) if before is not None else None
        if joined is not None:
            out[-1] = joined
        else:
            out.append(_with_norm(statement))
    return tuple(out)


def _call(statement: Statement | None) -> Invoke | None:
    value = statement.value if isinstance(statement, Assign) else None
    return value if isinstance(value, Invoke) and value.function == name(CALL) else None


def _with_norm(statement: Statement) -> Statement:
    """`f(norm(x, scale, eps = e), V, W)` as `f(x, V, W, scale = scale, eps = e)`."""
    call = _call(statement)
    rows = None if call is None else call.args[0]
    if call is None or not isinstance(rows, Invoke) or rows.function != name("norm"):
        return statement
    x, scale = rows.args
    assert isinstance(statement, Assign)
    made = replace(call, args=(x, *call.args[1:]), kwargs=(*call.kwargs, ("scale", scale), *rows.kwargs))
    return replace(statement, value=made)


def _with_residual(before: Statement, statement: Statement, used: Counter[str]) -> Statement | None:
    """`y = f(x, ..)` and `z = x + y` as `z = f(x, .., residual = True)`, if `y` is only there for it."""
    call = _call(before)
    if call is None or not isinstance(statement, Assign) or not isinstance(statement.value, Operation):
        return None
    assert isinstance(before, Assign)
    (given,), total = before.targets, statement.value
    sides: tuple[Expression, Expression] = (total.left, total.right)
    if total.op != "+" or not isinstance(given, Var) or used[given.name] != 1:
        return None
    if set(sides) != {call.args[0], given} or not isinstance(call.args[0], Var):
        return None
    return replace(statement, value=replace(call, kwargs=(*call.kwargs, ("residual", Literal(True)))))
