"""Expressions as a list of statements, for whoever prints code from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nldsl.calculus.expression import SYMBOL, Expr, walk
from nldsl.catalog.broadcast import broadcast
from nldsl.catalog.values import Shape, Static
from nldsl.library import PRIMITIVES, torch_function


@dataclass(frozen=True)
class Argument:
    """An operand of a step: the name of a symbol or an earlier step, or a number.

    `view` is the shape at one token to view it as before an elementwise operation, `None` if it
    fits as it is: a scalar beside a vector has view `(1,)`, so it needs one more axis on the right.
    """

    source: str | float
    view: Shape | None = None


@dataclass(frozen=True)
class Step:
    """`name = torch(*arguments, **options)`; `expr` carries shape, kind and axis labels.

    `torch` is `module:function`; `operator:add` and its like are meant to be printed infix.
    """

    name: str
    expr: Expr
    torch: str
    arguments: tuple[Argument, ...]
    options: tuple[tuple[str, Static], ...]


@dataclass(frozen=True)
class Schedule:
    """Steps in order, and where each requested output is found."""

    steps: tuple[Step, ...]
    outputs: Mapping[str, Argument]


def schedule(outputs: Mapping[str, Expr], names: Mapping[Expr, str], taken: Iterable[str] = ()) -> Schedule:
    """The steps that compute `outputs`, each expression once, arguments first.

    `names` says what to call symbols (and expressions computed already, which then are not computed
    again); a symbol that it lacks keeps its own name.  Outputs are named as requested, other steps
    after what they are; `taken` names are avoided.

    Errors: `ValueError` if a requested name is taken.
    """
    used = {*taken, *names.values()}
    clash = sorted(used & set(outputs))
    if clash:
        raise ValueError(f"`{clash[0]}` is taken")
    used |= set(outputs)
    wanted = {e: n for n, e in reversed(list(outputs.items()))}
    known: dict[Expr, str] = dict(names)
    steps: list[Step] = []
    for expr in _needed(outputs.values(), known):
        if expr in known or expr.value is not None:
            continue
        if expr.op == SYMBOL:
            known[expr] = expr.name
            continue
        name = wanted.get(expr) or _fresh(_suggest(expr, known), used)
        used.add(name)
        known[expr] = name
        steps.append(_step(name, expr, known))
    return Schedule(tuple(steps), {n: _argument(e, known) for n, e in outputs.items()})


def _needed(roots: Iterable[Expr], known: Mapping[Expr, str]) -> list[Expr]:
    """What must be visited: nothing below an expression that has a name already."""
    keep: set[Expr] = set()
    stack = list(roots)
    order = list(walk(stack))
    while stack:
        expr = stack.pop()
        if expr not in keep:
            keep.add(expr)
            stack.extend(() if expr in known else expr.args)
    return [e for e in order if e in keep]


def _argument(expr: Expr, known: Mapping[Expr, str], view: Shape | None = None) -> Argument:
    return Argument(expr.value, None) if expr.value is not None else Argument(known[expr], view)


def _step(name: str, expr: Expr, known: Mapping[Expr, str]) -> Step:
    """One node as a call, elementwise operands with the view that aligns them."""
    primitive = PRIMITIVES[expr.op]
    operands = [a.operand for a in expr.args]
    views: list[Shape | None] = [None] * len(operands)
    if primitive.elementwise:
        aligned = broadcast(operands, expr.op).views
        views = [v if v != o.shape else None for v, o in zip(aligned, operands, strict=True)]
    passed = {o.name for o in primitive.options if o.runtime}
    return Step(
        name,
        expr,
        torch_function(expr.op, operands[: len(operands) - expr.owned]),
        tuple(_argument(a, known, v) for a, v in zip(expr.args, views, strict=True)),
        tuple((n, v) for n, v in expr.options if n in passed),
    )


def _suggest(expr: Expr, known: Mapping[Expr, str]) -> str:
    """A name that says what it is: `W2_key` for `W2 @ key`, `silu_W2_key` for its activation."""
    parts = [known[a] for a in expr.args if a in known]
    if expr.op == "matmul":
        text = "_".join(parts)
    elif len(expr.args) == 1:
        text = f"{expr.op}_{parts[0]}" if parts else expr.op
    else:
        text = expr.op
    text = re.sub(r"\W+", "_", text).strip("_")
    return text if len(text) <= 24 else expr.op


def _fresh(text: str, used: set[str]) -> str:
    """The first of `text`, `text_2`, `text_3`, ... that is free."""
    name, count = text, 1
    while name in used:
        count += 1
        name = f"{text}_{count}"
    return name
