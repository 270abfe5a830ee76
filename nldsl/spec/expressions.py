"""Expressions: literals, names, arithmetic, calls and reads, each to a static item or a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.diagnostics import Edit, Label, did_you_mean
from nldsl.library import PRIMITIVES
from nldsl.spec.frame import Frame
from nldsl.spec.items import POISON, Item, MemoryBox, Poison, Ref, describe, is_number, is_static
from nldsl.spec.loader import KINDS
from nldsl.spec.primitives import apply
from nldsl.spec.program import Value
from nldsl.spec.static import fold
from nldsl.syntax import tree

OPERATIONS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "**": "pow",
    "@": "matmul",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
    "==": "eq",
    "!=": "ne",
}
"""The primitive behind each operator."""


def evaluate(frame: Frame, node: tree.Expr, target: str | None = None) -> Item:
    """What `node` stands for; if it is computed, its last operation is called `target`.

    Never raises on user input: a mistake is reported once and gives `POISON`.
    """
    frame.session.spend(node.span)
    return HANDLERS[type(node)](frame, node, target)


def value_of(frame: Frame, node: tree.Expr, target: str | None = None) -> Value | Poison:
    """`node` as a value; numbers become constants."""
    return as_value(frame, evaluate(frame, node, target), node)


def as_value(frame: Frame, item: Item, node: tree.Expr) -> Value | Poison:
    """An item as a value at a token, or a report."""
    if isinstance(item, Value) or item is POISON:
        return item
    if is_number(item):
        return frame.constant(item, node.span)
    help_ = ""
    if isinstance(item, MemoryBox):
        name = item.name
        asked = "1" if dict(item.source.arguments).get("in") == 1 else "q"
        help_ = f"read it: `{name}[{asked}]`; `{name} *= a` scales what it holds, `{name} += e` adds to it"
    elif isinstance(item, bool):
        help_ = "`if` chooses by what is known beforehand: `if nesterov { y = a } else { y = b }`"
    return frame.session.report(
        "NL0404", f"expected a value, found {describe(item)}", node.span, "not a value", help=help_
    )


def static_of(frame: Frame, node: tree.Expr, what: str, advice: str = "") -> Any:
    """`node` as a static item, or `POISON` after a report."""
    item = evaluate(frame, node)
    if item is POISON or is_static(item):
        return item
    return frame.session.report(
        "NL0403",
        f"{what} must be known when the program is compiled, found {describe(item)}",
        node.span,
        _when(frame),
        help=advice,
    )


_OF_VALUES = {
    "and": "of values that are 0 or 1, `a * b` is 1 where both are",
    "or": "of values that are 0 or 1, `maximum(a, b)` is 1 where one of them is",
    "not": "of values that are 0 or 1, `1 - a` is 1 where `a` is not",
}
"""What to write in place of a word of logic where values are computed."""


def _when(frame: Frame) -> str:
    return f"computed at every {'step' if frame.place == 'rule' else 'token'}"


def lookup(frame: Frame, name: str) -> Item | None:
    """What `name` stands for in this frame or, inside `repeat`, in the enclosing one."""
    if name in frame.names:
        return frame.names[name]
    if name in frame.hooks:
        frame.names[name] = frame.hooks[name]()
        return frame.names[name]
    if frame.parent is None:
        return None
    item = lookup(frame.parent, name)
    if not isinstance(item, Value):
        return item
    inner = Value(frame.namer.variable(name), item.shape, item.kind)
    frame.names[name] = inner
    frame.imports[name] = inner
    return inner


def unknown_name(frame: Frame, node: tree.Name) -> Poison:
    """Report a name that stands for nothing here."""
    scope: Frame | None = frame
    known: set[str] = set()
    while scope is not None:
        if node.id in scope.assigned:
            return frame.session.report(
                "NL0312",
                f"`{node.id}` is used before it is assigned",
                node.span,
                "no value yet",
                secondary=(Label(scope.assigned[node.id], "assigned here"),),
                help="statements run from top to bottom; move the assignment above the use",
            )
        known |= set(scope.names) | set(scope.hooks)
        scope = scope.parent
    if node.id == "self":
        return frame.session.report(
            "NL0326",
            "`self` stands outside of `write each`",
            node.span,
            "no memory to stand for",
            help="`self` is the memory being written in `write each of A, B { [k] <- self[v] ... }`",
            edit=_memory_for_self(frame, node),
        )
    near = did_you_mean(node.id, [*known, "true", "false"]) or _hint(frame, node.id)
    return frame.session.report(
        "NL0301", f"unknown name `{node.id}`", node.span, "not defined here", help=near
    )


def _hint(frame: Frame, name: str) -> str:
    """What to do about a name that nothing here resembles."""
    if name in PRIMITIVES:
        return f"`{name}` is a function: `{name}(x)`"
    if frame.place == "rule":
        return "a rule knows `W`, its gradient `g` and `step`; of linear layers also the input `x` and `dy`"
    if name in ("t", "step", "time"):
        return "`position()` counts the tokens of a sequence"
    return f"assign it above, or make it a parameter: `{name} = 4` in the header"


def _memory_for_self(frame: Frame, node: tree.Name) -> Edit | None:
    """The memory of the block in place of `self`, if there is only one."""
    names = [name for name in frame.memories if "[" not in name]
    return Edit(node.span, names[0], f"write `{names[0]}`") if len(names) == 1 else None


def _number(frame: Frame, node: tree.Number, target: str | None) -> Item:
    return node.value


def _string(frame: Frame, node: tree.String, target: str | None) -> Item:
    return node.value


def _name(frame: Frame, node: tree.Name, target: str | None) -> Item:
    item = lookup(frame, node.id)
    if item is not None:
        return item
    if node.id in ("true", "false"):
        return node.id == "true"
    if node.id not in frame.assigned and any(
        frame.unit.find(kind, node.id) for kind in KINDS if kind != "model"
    ):
        return Ref(node.id, frame.unit)
    return unknown_name(frame, node)


def _list(frame: Frame, node: tree.ListExpr, target: str | None) -> Item:
    items = [static_of(frame, item, "an element of a list") for item in node.items]
    return POISON if any(item is POISON for item in items) else tuple(items)


def _unary(frame: Frame, node: tree.Unary, target: str | None) -> Item:
    item = evaluate(frame, node.operand)
    if item is POISON:
        return POISON
    if node.op == "not":
        if isinstance(item, bool):
            return not item
        return frame.session.report(
            "NL0404",
            f"`not` needs `true` or `false`, found {describe(item)}",
            node.span,
            "not a truth value",
            help=_OF_VALUES["not"] if isinstance(item, Value) else "",
        )
    if is_number(item):
        return -item
    value = as_value(frame, item, node.operand)
    return POISON if value is POISON else apply(frame, "neg", (value,), {}, node.span, target)


def _binary(frame: Frame, node: tree.Binary, target: str | None) -> Item:
    left, right = evaluate(frame, node.left), evaluate(frame, node.right)
    if left is POISON or right is POISON:
        return POISON
    if is_static(left) and is_static(right):
        return fold(frame.session, node.op, left, right, node.span)
    if node.op not in OPERATIONS:
        which = left if isinstance(left, Value) else right
        return frame.session.report(
            "NL0403",
            f"`{node.op}` works on numbers known when the program is compiled, found {describe(which)}",
            node.span,
            _when(frame),
            help=_OF_VALUES.get(node.op, ""),
        )
    if node.op == "/" and is_number(right) and not right:
        return frame.session.report("NL0406", "division by zero", node.span, "the divisor is 0 here")
    a, b = as_value(frame, left, node.left), as_value(frame, right, node.right)
    if a is POISON or b is POISON:
        return POISON
    return apply(frame, OPERATIONS[node.op], (a, b), {}, node.span, target, (node.left.span, node.right.span))


def element(frame: Frame, items: tuple[Any, ...], node: tree.Index) -> Item:
    """`xs[0]` of a static list."""
    index = static_of(frame, node.key, "the index of a list")
    if not is_static(index):
        return POISON
    if isinstance(index, int) and not isinstance(index, bool) and -len(items) <= index < len(items):
        found: Item = items[index]
        return found
    return frame.session.report(
        "NL0405",
        f"a list of {len(items)} has no element {index if is_number(index) else describe(index)}",
        node.key.span,
        f"expected 0 to {len(items) - 1}" if items else "the list is empty",
    )


Handler = Callable[[Frame, Any, str | None], Item]

HANDLERS: dict[type, Handler] = {
    tree.Number: _number,
    tree.String: _string,
    tree.Name: _name,
    tree.ListExpr: _list,
    tree.Unary: _unary,
    tree.Binary: _binary,
}
"""How each kind of expression is evaluated; `calls` adds calls, `memories` adds reads."""
