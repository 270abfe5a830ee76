"""Compute what is known at compile time: operations on literals become literals."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from nldsl.calculus.simplify import build
from nldsl.library import PRIMITIVES
from nldsl.spec.program import Apply, Block, Function, Memory, Statement, TaskWrite, Term, Write, option

AnyStatement = TypeVar("AnyStatement", bound=Statement)


def fold_literals(block: Block) -> Block:
    """The same block, where `exp(-0.5)` is a number; also inside its maps, objectives and rules."""
    body = tuple(_inside(s) for s in fold_body(block.body))
    return replace(block, body=body, memories=tuple(_memory(m) for m in block.memories))


def fold_body(body: tuple[AnyStatement, ...]) -> tuple[AnyStatement, ...]:
    """Straight-line code with every elementwise operation on literals computed."""
    known: dict[str, float] = {}
    out: list[AnyStatement] = []
    for statement in body:
        if isinstance(statement, Apply):
            number = _number(statement, known)
            if number is not None:
                known[statement.out.name] = number
                statement = replace(statement, op="constant", args=(), options=(("value", number),))
        out.append(statement)
    return tuple(out)


def _number(apply: Apply, known: dict[str, float]) -> float | None:
    if apply.op == "constant":
        value = option(apply.options, "value")
        return value if isinstance(value, int | float) else None
    if not apply.args or not PRIMITIVES[apply.op].elementwise or any(a.name not in known for a in apply.args):
        return None
    folded = build(apply.op, *(float(known[a.name]) for a in apply.args)).value
    return None if folded is None else float(folded)


def _function(function: Function) -> Function:
    return replace(function, body=fold_body(function.body))


def _memory(memory: Memory) -> Memory:
    return memory if memory.function is None else replace(memory, function=_function(memory.function))


def _term(term: Term) -> Term:
    rule = replace(term.rule, function=_function(term.rule.function))
    return replace(term, objective=_function(term.objective), rule=rule)


def _inside(statement: Statement) -> Statement:
    if isinstance(statement, Write):
        return replace(statement, terms=tuple(_term(t) for t in statement.terms))
    if isinstance(statement, TaskWrite):
        return replace(statement, rule=replace(statement.rule, function=_function(statement.rule.function)))
    return statement
