"""Statements that mean the same in every body: assignment, `if`, `for`, `return`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nldsl.catalog.values import Shape
from nldsl.spec.calls import evaluate_many
from nldsl.spec.expressions import evaluate, static_of, value_of
from nldsl.spec.frame import Frame, Place
from nldsl.spec.items import POISON, Item, describe
from nldsl.spec.program import Value
from nldsl.spec.static import whole_number
from nldsl.syntax import tree

Statement = Callable[[Frame, Any], None]

HANDLERS: dict[tuple[Place, type], Statement] = {}
"""How each statement is elaborated in each kind of body; `blocks` and `rules` add theirs."""

_WORDS: dict[type, str] = {
    tree.LevelDecl: "level",
    tree.MemoryDecl: "memory",
    tree.Write: "a write",
    tree.TaskWrite: "minimizes",
    tree.Repeat: "repeat",
    tree.Every: "every",
    tree.Group: "a group of `train`",
    tree.Setting: "a setting of `train`",
    tree.LevelEdit: "an edit of a level",
    tree.Return: "return",
}


def run(frame: Frame, statements: Iterable[tree.Statement]) -> None:
    """Elaborate statements from top to bottom, until one returns."""
    for statement in statements:
        if frame.returned is not None:
            return
        frame.session.spend(statement.span)
        handler = HANDLERS.get((frame.place, type(statement)))
        if handler is not None:
            handler(frame, statement)
            continue
        word = _WORDS.get(type(statement), "this")
        quoted = word if " " in word else f"`{word}`"
        frame.session.report(
            "NL0313",
            f"{quoted} cannot stand in {'an' if frame.place == 'objective' else 'a'} {frame.place}",
            statement.span,
            "not here",
        )


def assign(frame: Frame, node: tree.Assign) -> None:
    """`a = e`, `a, b = parts(...)`, `a += e` of values and static items."""
    frame.variable = node.targets[0].id
    if len(node.targets) > 1:
        _assign_many(frame, node)
        return
    name = node.targets[0]
    expression: tree.Expr = node.value
    if node.op != "=":
        expression = tree.Binary(span=node.span, op=node.op[0], left=name, right=node.value)
    frame.names[name.id] = evaluate(frame, expression, name.id)


def _assign_many(frame: Frame, node: tree.Assign) -> None:
    names = tuple(t.id for t in node.targets)
    if node.op != "=":
        frame.session.report(
            "NL0409", f"`{node.op}` takes one name, found {len(names)}", node.span, "use `=`"
        )
    results = evaluate_many(frame, node.value, names)
    for index, name in enumerate(names):
        frame.names[name] = POISON if results is POISON else results[index]


_CHOICE = "a choice made at every token is `where(condition, a, b)`"


def condition(frame: Frame, node: tree.If) -> None:
    """`if` on a static truth value."""
    item = static_of(frame, node.condition, "the condition of `if`", _CHOICE)
    if item is POISON:
        for name in _assigned_in(node):
            frame.names.setdefault(name, POISON)
    elif isinstance(item, bool):
        run(frame, node.body if item else node.orelse)
    else:
        frame.session.report(
            "NL0404",
            f"`if` needs `true` or `false`, found {describe(item)}",
            node.condition.span,
            "not a truth value",
        )


def _assigned_in(node: tree.If) -> list[str]:
    return [t.id for s in (*node.body, *node.orelse) if isinstance(s, tree.Assign) for t in s.targets]


def loop(frame: Frame, node: tree.For) -> None:
    """`for c, i in list`: the body once per element, unrolled."""
    items = static_of(frame, node.items, "the list of `for`")
    if items is POISON:
        for name in node.names:
            frame.names[name.id] = POISON
        return
    if not isinstance(items, tuple):
        frame.session.report(
            "NL0404",
            f"`for` needs a list, found {describe(items)}",
            node.items.span,
            "not a list",
            help="`[16, 64, 256]`",
        )
        return
    if len(node.names) > 2:
        frame.session.report(
            "NL0409", "`for` takes an element and its index", node.names[2].span, "a third name"
        )
        return
    outer = frame.indices
    for index, item in enumerate(items):
        frame.indices = (*outer, index)
        frame.names[node.names[0].id] = item
        if len(node.names) == 2:
            frame.names[node.names[1].id] = index
        run(frame, node.body)
        if frame.returned is not None:
            break
    frame.indices = outer


def copies(frame: Frame, node: tree.Repeat) -> None:
    """`repeat n` in a map, an objective or a rule: the body n times, unrolled."""
    count = whole_number(
        frame.session, evaluate(frame, node.count), "the count of `repeat`", node.count.span, least=0
    )
    if count is POISON:
        return
    outer = frame.indices
    for index in range(count):
        frame.indices = (*outer, index)
        run(frame, node.body)
        if frame.returned is not None:
            break
    frame.indices = outer


def give_back(frame: Frame, node: tree.Return) -> None:
    """`return e`: values of the body, heads merged in blocks."""
    frame.variable = "out"
    values: list[Item] = []
    for expression in node.values:
        item: Item = value_of(frame, expression, "out" if "out" not in frame.assigned else None)
        values.append(item)
    frame.returned = tuple(values)


def one_result(frame: Frame, definition: tree.Definition, wanted: Shape | None, words: str) -> Value | None:
    """The single value a map or an objective returns, of the shape that was asked for."""
    if frame.returned is None:
        frame.session.report(
            "NL0324",
            f"{definition.kind} `{definition.name.id}` returns nothing",
            definition.name.span,
            "no `return` was reached",
        )
        return None
    value = frame.returned[0]
    if len(frame.returned) > 1:
        frame.session.report(
            "NL0409",
            f"{definition.kind} `{definition.name.id}` must return one value",
            definition.name.span,
            "several",
        )
        return None
    if not isinstance(value, Value):
        return None
    if (wanted is not None and value.shape != wanted) or (wanted is None and value.kind != "vector"):
        frame.session.report(
            "NL0401",
            f"{definition.kind} `{definition.name.id}` must return {words}, found {describe(value)}",
            definition.name.span,
            f"returns {describe(value)}",
            help=_SUMS.get(value.kind, "") if wanted == () else "",
        )
        return None
    return value


_SUMS = {
    "vector": "`sum(...)` adds up the last axis; all elements of a matrix are `sum(sum(...))`",
    "matrix": "`sum(...)` adds up the last axis: of a matrix it takes two",
}

_EVERYWHERE: tuple[Place, ...] = ("block", "map", "objective", "rule")
for _place in _EVERYWHERE:
    HANDLERS[_place, tree.Assign] = assign
    HANDLERS[_place, tree.If] = condition
    HANDLERS[_place, tree.For] = loop
for _place in _EVERYWHERE[1:]:
    HANDLERS[_place, tree.Repeat] = copies
for _place in _EVERYWHERE[1:3]:
    HANDLERS[_place, tree.Return] = give_back
