"""Expressions, clauses and one-line statements as text: one spelling for every tree."""

from __future__ import annotations

import re

from nldsl.syntax import tree as t
from nldsl.syntax.build import parse_number

_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(1, 10)
_LEVELS = {
    "or": _OR,
    "and": _AND,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), _COMPARE),
    "+": _SUM,
    "-": _SUM,
    **dict.fromkeys(("*", "/", "//", "@"), _PRODUCT),
    "**": _POWER,
}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def show(node: t.Expr, level: int = _OR) -> str:
    """The expression as text, in brackets where its operator binds weaker than `level`.

    Numbers keep the spelling they were written with, as long as it means the same.
    """
    match node:
        case t.Number():
            return _number(node)
        case t.String():
            return f'"{node.value.translate(_ESCAPES)}"'
        case t.Name():
            return node.id
        case t.ListExpr():
            return f"[{', '.join(show(item) for item in node.items)}]"
        case t.Call():
            return f"{node.function.id}({arguments(node.args)})"
        case t.Index():
            return f"{node.target.id}[{show(node.key)}]"
        case t.Unary():
            own, text = _unary(node)
        case t.Binary():
            own, text = _LEVELS[node.op], _binary(node)
    return text if own >= level else f"({text})"


def _unary(node: t.Unary) -> tuple[int, str]:
    if node.op == "not":
        return _NOT, f"not {show(node.operand, _NOT)}"
    return _SIGN, f"-{show(node.operand, _SIGN)}"


def _binary(node: t.Binary) -> str:
    own = _LEVELS[node.op]
    left, right = own, own + 1
    if own == _COMPARE:
        left = own + 1
    elif own == _POWER:
        left, right = _ATOM, _SIGN
    return f"{show(node.left, left)} {node.op} {show(node.right, right)}"


def _number(node: t.Number) -> str:
    written = node.span.text
    if written[:1] in tuple(".0123456789") and _spells(written, node.value):
        return written
    return repr(node.value)


def _spells(text: str, value: int | float) -> bool:
    try:
        found = parse_number(text)
    except ValueError:
        return False
    return type(found) is type(value) and found == value


def arguments(args: tuple[t.Arg, ...]) -> str:
    """What stands between the brackets of a call."""
    return ", ".join(argument(a) for a in args)


def argument(arg: t.Arg) -> str:
    """One argument of a call."""
    return f"{arg.name} = {show(arg.value)}" if arg.name else show(arg.value)


def names(items: tuple[t.Name, ...]) -> str:
    """Names with commas."""
    return ", ".join(n.id for n in items)


def clock(node: t.Clock) -> str:
    """`16 tokens`, `1 step`, `never`."""
    if node.count is None:
        return "never"
    one = isinstance(node.count, t.Number) and node.count.value == 1
    return f"{show(node.count)} {node.unit[:-1] if one else node.unit}"


def every(node: t.Clock) -> str:
    """A clock with the word `every` in front, unless it is `never`."""
    return clock(node) if node.count is None else f"every {clock(node)}"


def clauses(node: t.Clauses) -> list[str]:
    """The clauses in their canonical order; those that belong together are one text."""
    found: list[str] = []
    if node.minimize is not None:
        found.append(f"minimize {show(node.minimize)}")
    window = f"over {tokens(node.over)}" if node.over is not None else ""
    weight = f"weighted {show(node.weighted)}" if node.weighted is not None else ""
    found.append(f"{window} {weight}".strip())
    if node.by is not None:
        found.append(f"by {show(node.by)}")
    if node.gradient_every is not None:
        found.append(f"gradient every {tokens(node.gradient_every)}")
    if node.at_commit:
        found.append("at commit")
    keep = f"retain {show(node.retain)}" if node.retain is not None else ""
    toward = f"toward {show(node.toward)}" if node.toward is not None else ""
    found.append(f"{keep} {toward}".strip())
    if node.project is not None:
        found.append(f"project {show(node.project)}")
    return [text for text in found if text]


def tokens(count: t.Expr) -> str:
    """`16 tokens`, `1 token`."""
    one = isinstance(count, t.Number) and count.value == 1
    return f"{show(count)} {'token' if one else 'tokens'}"


def memory(node: t.MemoryDecl) -> str:
    """What stands behind the `=` of a memory declaration."""
    parts = [show(node.map)]
    if node.per_head is True:
        parts.append("per head")
    elif node.per_head is not None and not isinstance(node.per_head, bool):
        parts.append(f"per head({show(node.per_head)})")
    if node.init is not None:
        parts.append(f"init {_init(node.init)}")
    if node.reset is not None:
        parts.append(f"reset {_reset(node.reset)}")
    return " ".join(parts)


def _init(node: t.Init) -> str:
    if node.kind == "from" and node.argument is not None:
        return show(node.argument)
    return node.kind + (f"({show(node.argument)})" if node.argument is not None else "")


def _reset(node: t.Reset) -> str:
    if node.kind == "tokens" and node.count is not None:
        return f"every {tokens(node.count)}"
    return "every sequence" if node.kind == "sequence" else "never"


def selectors(node: t.Group) -> str:
    """The names and patterns of a group."""
    return ", ".join(show(s) for s in node.selectors)


def rule(node: t.Group) -> str:
    """What stands behind the `by` of a group."""
    return show(node.rule) + (f" {every(node.clock)}" if node.clock is not None else "")


def quantity(node: t.Setting) -> str:
    """The value of a setting with its unit."""
    text = show(node.value)
    value = f"({text})" if re.match(r"by\b", text) else text  # `task by` would begin a group
    return f"{value} {node.unit}".rstrip()


def param(node: t.Param) -> str:
    """`x` or `heads = 4`."""
    return node.name.id + (f" = {show(node.default)}" if node.default is not None else "")


def line(node: t.Statement) -> list[str]:
    """A statement without braces: its text, then its clauses, each a text of its own."""
    match node:
        case t.Assign():
            return [f"{names(node.targets)} {node.op} {show(node.value)}"]
        case t.Return():
            return [f"return {', '.join(show(v) for v in node.values)}"]
        case t.MemoryDecl():
            return [f"memory {names(node.names)} = {memory(node)}"]
        case t.TaskWrite():
            return [f"{node.target.id} minimizes {show(node.objective)}", *clauses(node.clauses)]
        case t.Write():
            return [f"{names(node.targets)}{term(node.terms[0])[0]}", *term(node.terms[0])[1:]]
        case _:
            return _training(node)


def _training(node: t.Statement) -> list[str]:
    match node:
        case t.Group():
            return [f"{selectors(node)} by {rule(node)}"]
        case t.Setting():
            flag = isinstance(node.value, t.Name) and node.value.id in ("true", "false")
            return [f"{node.key.id} = {quantity(node)}" if flag else f"{node.key.id} {quantity(node)}"]
        case t.LevelEdit():
            return [f"level {show(node.path)} {every(node.clock)}"]
        case _:
            raise TypeError(f"{type(node).__name__} has braces")


def term(node: t.Term) -> list[str]:
    """`[k] <- v`, then its clauses."""
    return [f"[{show(node.key)}] <- {show(node.value)}", *clauses(node.clauses)]
