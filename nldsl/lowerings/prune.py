"""Drop assignments nobody uses, and put values that are used once where they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from nldsl.emit.nodes import (
    Assign,
    Expression,
    For,
    FunctionDef,
    If,
    Item,
    Starred,
    Statement,
    TupleOf,
    Var,
    With,
)


def prune(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """`body` without assignments to names that nothing reads, in loops and branches too.

    Only plain `name = expression` goes: emitted expressions have no side effects, but a statement
    that also stores state stays.
    """
    while True:
        read = Counter(v for s in body for v in reads(s))
        kept = _used(body, read)
        if size(kept) == size(body):
            return kept
        body = kept


def _used(body: tuple[Statement, ...], read: Counter[str]) -> tuple[Statement, ...]:
    kept = (s for s in body if (chosen := _plain(s)) is None or read[chosen])
    return tuple(_nested(s, read) for s in kept)


def _nested(statement: Statement, read: Counter[str]) -> Statement:
    # A suite is never empty: one that would be stays as it was.
    if isinstance(statement, For | If | With):
        statement = replace(statement, body=_used(statement.body, read) or statement.body)
    if isinstance(statement, If):
        statement = replace(statement, orelse=_used(statement.orelse, read) or statement.orelse)
    return statement


def _plain(statement: Statement) -> str | None:
    if isinstance(statement, Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        return target.name if isinstance(target, Var) else None
    return None


def reads(node: Any) -> Iterator[str]:
    """Names a node reads (targets of assignments excluded, subscripted targets included)."""
    if isinstance(node, Assign):
        yield from reads(node.value)
        for target in node.targets:
            yield from _target_reads(target)
    elif isinstance(node, Var):
        yield node.name
    elif isinstance(node, tuple):
        for part in node:
            yield from reads(part)
    elif is_dataclass(node) and not isinstance(node, type):
        for field in fields(node):
            yield from reads(getattr(node, field.name))


def _target_reads(target: Expression) -> Iterator[str]:
    if isinstance(target, TupleOf):
        for item in target.items:
            yield from _target_reads(item)
    elif isinstance(target, Starred):
        yield from _target_reads(target.value)
    elif isinstance(target, Item):
        yield from reads(target)


def inline(body: tuple[Statement, ...], these: frozenset[str], width: int = 60) -> tuple[Statement, ...]:
    """Put `name = expression` into its only use, if the next statement is that use.

    `these` are the names that may go: the reader wants to see those that were written in the spec.
    """
    out = list(body)
    i = 0
    while i + 1 < len(out):
        chosen = _plain(out[i])
        once = chosen is not None and sum(v == chosen for s in out for v in reads(s)) == 1
        if chosen is not None and chosen in these and once and _simple_use(out[i + 1], chosen):
            statement = out[i]
            if isinstance(statement, Assign) and size(statement.value) <= width:
                out[i : i + 2] = [substitute(out[i + 1], chosen, statement.value)]
                i = max(0, i - 1)
                continue
        i += 1
    return tuple(out)


def _simple_use(statement: Statement, chosen: str) -> bool:
    return isinstance(statement, Assign) and chosen in set(reads(statement.value))


def size(node: Any) -> int:
    """How large an expression is, in nodes."""
    if isinstance(node, tuple):
        return sum(map(size, node))
    if is_dataclass(node) and not isinstance(node, type):
        return 1 + sum(size(getattr(node, f.name)) for f in fields(node))
    return 0


def substitute(node: Any, chosen: str, value: Expression) -> Any:
    """`node` with the name `chosen` replaced by `value`; targets of assignments stay."""
    if isinstance(node, Var):
        return value if node.name == chosen else node
    if isinstance(node, tuple):
        return tuple(substitute(p, chosen, value) for p in node)
    if isinstance(node, Assign):
        return replace(node, value=substitute(node.value, chosen, value))
    if is_dataclass(node) and not isinstance(node, type | FunctionDef):
        return replace(
            node, **{f.name: substitute(getattr(node, f.name), chosen, value) for f in fields(node)}
        )
    return node
