"""Which parameters of a block are streams of tokens, and which must be numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from nldsl.library import PRIMITIVES
from nldsl.syntax import tree


def stream_names(definition: tree.Definition) -> list[str]:
    """The first parameter without default, and others that are nowhere a count, a clock or an option.

    Example:
        >>> from nldsl.spec.loader import load
        >>> from nldsl.diagnostics import DiagnosticBag
        >>> unit = load("block f(x, heads) { return merge(split(x, heads)) }", DiagnosticBag()).main
        >>> stream_names(unit.own["block", "f"])
        ['x']
    """
    static = {"heads"} if _implicit_heads(definition.body) else set()
    for node in walk(definition.body):
        for expression in _static_places(node):
            static |= names_in(expression)
    free = [p.name.id for p in definition.params if p.default is None]
    return [name for name in free if name not in static or name == free[0]]


def walk(node: Any) -> Iterator[tree.Node]:
    """Every node below `node`, itself included."""
    if isinstance(node, tuple):
        for item in node:
            yield from walk(item)
    elif is_dataclass(node) and isinstance(node, tree.Node):
        yield node
        for f in fields(node):
            if f.name != "span":
                yield from walk(getattr(node, f.name))


def names_in(node: Any) -> set[str]:
    """Names that an expression uses as numbers: those under `dim(...)` are values."""
    if isinstance(node, tree.Call) and node.function.id == "dim":
        return set()
    if isinstance(node, tree.Name):
        return {node.id}
    if isinstance(node, tree.Unary):
        return names_in(node.operand)
    if isinstance(node, tree.Binary):
        return names_in(node.left) | names_in(node.right)
    if isinstance(node, tree.ListExpr):
        return set().union(*(names_in(i) for i in node.items)) if node.items else set()
    return set()


def _static_places(node: tree.Node) -> Iterator[Any]:
    """Expressions that must be known when the program is compiled."""
    if isinstance(node, tree.Clock | tree.Repeat | tree.Reset):
        yield node.count
    elif isinstance(node, tree.For):
        yield node.items
    elif isinstance(node, tree.If):
        yield node.condition
    elif isinstance(node, tree.MemoryDecl):
        yield node.per_head
        if isinstance(node.map, tree.Call):
            yield from (a.value for a in node.map.args)
    elif isinstance(node, tree.Call) and node.function.id in PRIMITIVES:
        primitive = PRIMITIVES[node.function.id]
        if not primitive.variadic:
            options = {o.name for o in primitive.options}
            positional = [a for a in node.args if a.name is None][len(primitive.values) :]
            yield from (a.value for a in positional)
            yield from (a.value for a in node.args if a.name in options)


def _implicit_heads(body: tuple[Any, ...]) -> bool:
    return any(isinstance(n, tree.MemoryDecl) and n.per_head is True for n in walk(body))
