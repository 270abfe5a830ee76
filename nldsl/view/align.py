"""Match the blocks of two programs by where they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

from nldsl.graph.places import Place
from nldsl.spec.program import Block, Call, Program, Repeat, Statement, Term, Value


@dataclass(frozen=True)
class Node:
    """A block where it is called; `times` is the count of the repeat that it is the body of (1: none)."""

    block: Block
    place: Place
    times: int = 1

    @property
    def key(self) -> tuple[bool, str]:
        """What makes two calls the same one: a repeat, or a call of that name."""
        return self.times > 1, "" if self.times > 1 else self.block.name


@dataclass(frozen=True)
class Pair:
    """A block of the first program and its counterpart; one of them is missing if it was added or removed."""

    before: Node | None
    after: Node | None


def align(before: Program, after: Program) -> Iterator[Pair]:
    """Every block of both programs, callers before what they call."""
    yield from _below(
        Node(before.root, Place.root(before)),
        Node(after.root, Place.root(after)),
    )


def _below(a: Node, b: Node) -> Iterator[Pair]:
    yield Pair(a, b)
    ours, theirs = list(_children(a)), list(_children(b))
    matcher = SequenceMatcher(None, [n.key for n in ours], [n.key for n in theirs], autojunk=False)
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        yield from _stretch(ours[i:i_end], theirs[j:j_end])


def _stretch(ours: Sequence[Node], theirs: Sequence[Node]) -> Iterator[Pair]:
    """Neighbours that stand in the place of one another, one by one; what is over came or went."""
    common = min(len(ours), len(theirs))
    for a, b in zip(ours, theirs, strict=False):
        yield from _below(a, b)
    yield from (Pair(n, None) for node in ours[common:] for n in _all(node))
    yield from (Pair(None, n) for node in theirs[common:] for n in _all(node))


def _all(node: Node) -> Iterator[Node]:
    yield node
    for child in _children(node):
        yield from _all(child)


def _children(node: Node) -> Iterator[Node]:
    for step in node.block.body:
        if isinstance(step, Call):
            yield Node(step.block, node.place.call(step))
        elif isinstance(step, Repeat):
            yield Node(step.block, node.place.repeat(step), step.count)


def canonical(block: Block) -> tuple[Statement, ...]:
    """The statements of a block with its values numbered in order, and callees by name alone.

    Two blocks that differ in the names of their variables only are the same.
    """
    names: dict[str, str] = {}

    def renamed(item: Any) -> Any:
        if isinstance(item, Value):
            return replace(item, name=names.setdefault(item.name, f"v{len(names)}"))
        if isinstance(item, tuple):
            return tuple(renamed(part) for part in item)
        return item

    for value in block.inputs:
        renamed(value)
    return tuple(_statement(step, renamed) for step in block.body)


def _statement(step: Statement, renamed: Callable[[Any], Any]) -> Statement:
    """One statement; functions and rules keep the names of their own values."""
    changed: dict[str, Any] = {}
    for field, value in vars(step).items():
        if field == "block":
            # Which block is called is said where the blocks are compared.
            changed[field] = Block("", (), (), (), ())
        elif field in ("path", "parameters"):
            # Paths hold the names of variables; parameters are compared on their own.
            changed[field] = type(value)()
        elif field == "terms":
            changed[field] = tuple(_term(term, renamed) for term in value)
        else:
            changed[field] = renamed(value)
    return replace(step, **changed)


def _term(term: Term, renamed: Callable[[Any], Any]) -> Term:
    return replace(
        term,
        key=renamed(term.key),
        target=renamed(term.target),
        weight=renamed(term.weight),
        rule=replace(term.rule, arguments=tuple((n, renamed(v)) for n, v in term.rule.arguments)),
    )
