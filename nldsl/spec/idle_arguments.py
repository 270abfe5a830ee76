"""NL0331: arguments that nothing reads under the other arguments of the same call.

`dgd(lr = eta, rate = "raw", eps = 1e-3)`: the branch that reads `eps` is not taken.  Works on the text: an
`if` whose condition compares a parameter with a literal is decided, everything else is taken both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from nldsl.spec.loader import Unit
from nldsl.spec.repairs import drop_argument
from nldsl.spec.session import Session
from nldsl.spec.streams import walk
from nldsl.syntax import tree

_UNKNOWN = object()
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def check_arguments(session: Session, item: tree.Definition | tree.Train | tree.Variant, unit: Unit) -> None:
    """Every call of a definition in the body of `item`."""
    own = {p.name.id for p in item.params} if isinstance(item, tree.Definition) else set()
    for node in walk(item.body):
        for kind, call, skip in _calls(node):
            found = unit.find(kind, call.function.id) if call.function.id not in own else None
            if found is not None and isinstance(found[0], tree.Definition):
                _check(session, call, found[0], skip)


def _calls(node: tree.Node) -> Iterator[tuple[str, tree.Call, int]]:
    """Calls by the kind of definition their place asks for, with the number of values given otherwise."""
    places: tuple[tuple[str, Any, int], ...] = ()
    if isinstance(node, tree.Clauses):
        places = (("rule", node.by, 0), ("objective", node.minimize, 2))
    elif isinstance(node, tree.Group):
        places = (("rule", node.rule, 0),)
    elif isinstance(node, tree.MemoryDecl):
        places = (("map", node.map, 1),)
    elif isinstance(node, tree.Assign | tree.Return):
        values = (node.value,) if isinstance(node, tree.Assign) else node.values
        places = tuple(("block", c, 0) for c in walk(values) if isinstance(c, tree.Call))
    for kind, call, skip in places:
        if isinstance(call, tree.Call):
            yield kind, call, skip


def _check(session: Session, call: tree.Call, definition: tree.Definition, skip: int) -> None:
    params = definition.params[skip:]
    given = _given(call, params)
    if not any(value is not _UNKNOWN for _, value in given.values()) or len(given) < 2:
        return
    known = {p.name.id: _literal(p.default) for p in params if p.default is not None}
    known |= {name: value for name, (_, value) in given.items()}
    every = {n.id for n in walk(definition.body) if isinstance(n, tree.Name)}
    live = set(_mentions(definition.body, known))
    live |= {n.id for p in params for n in walk((p.default,)) if isinstance(n, tree.Name)}
    deciding = sorted({n for n in _decided(definition.body, known)})
    for name, (argument, _) in given.items():
        if name in every and name not in live:
            because = ", ".join(f"`{n} = {_shown(known[n])}`" for n in deciding)
            session.report(
                "NL0331",
                f"`{name}` of {definition.kind} `{definition.name.id}` has no effect with {because}",
                argument.span,
                "nothing reads it",
                help="remove it, or choose the option that uses it",
                severity="warning",
                edit=drop_argument(argument.span),
            )


def _given(call: tree.Call, params: tuple[tree.Param, ...]) -> dict[str, tuple[tree.Arg, Any]]:
    """What a call gives, by parameter; values that are no literals are unknown."""
    names = [p.name.id for p in params]
    found: dict[str, tuple[tree.Arg, Any]] = {}
    for index, argument in enumerate(call.args):
        name = argument.name or (names[index] if index < len(names) else "")
        if name in names:
            found[name] = argument, _literal(argument.value)
    return found


def _literal(node: Any) -> Any:
    if isinstance(node, tree.Number | tree.String):
        return node.value
    if isinstance(node, tree.Name) and node.id in ("true", "false"):
        return node.id == "true"
    return _UNKNOWN


def _truth(node: tree.Expr, known: dict[str, Any]) -> Any:
    """Whether a condition holds, if that can be said."""
    if isinstance(node, tree.Unary) and node.op == "not":
        inner = _truth(node.operand, known)
        return inner if inner is _UNKNOWN else not inner
    if isinstance(node, tree.Binary) and node.op in _ORDER:
        left, right = (_value(n, known) for n in (node.left, node.right))
        same = isinstance(left, str) == isinstance(right, str)
        if left is _UNKNOWN or right is _UNKNOWN or (not same and node.op not in ("==", "!=")):
            return _UNKNOWN
        return _ORDER[node.op](left, right)
    value = _value(node, known)
    return value if isinstance(value, bool) else _UNKNOWN


def _value(node: tree.Expr, known: dict[str, Any]) -> Any:
    if isinstance(node, tree.Name) and node.id in known:
        return known[node.id]
    return _literal(node)


def _mentions(node: Any, known: dict[str, Any]) -> Iterator[str]:
    """Names below `node`, except in branches that are certainly not taken; conditions count too."""
    if isinstance(node, tuple):
        for item in node:
            yield from _mentions(item, known)
    elif isinstance(node, tree.If):
        truth = _truth(node.condition, known)
        taken = (node.body if truth is not False else (), node.orelse if truth is not True else ())
        yield from _mentions((node.condition, *taken), known)
    elif isinstance(node, tree.Node):
        if isinstance(node, tree.Name):
            yield node.id
        if isinstance(node, tree.MemoryDecl) and node.per_head is True:
            yield "heads"
        for f in fields(node):
            if f.name != "span":
                yield from _mentions(getattr(node, f.name), known)


def _decided(node: Any, known: dict[str, Any]) -> Iterator[str]:
    """Parameters that a decided condition below `node` looks at."""
    for part in walk(node):
        if isinstance(part, tree.If) and _truth(part.condition, known) is not _UNKNOWN:
            yield from (n.id for n in walk((part.condition,)) if isinstance(n, tree.Name) and n.id in known)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"
