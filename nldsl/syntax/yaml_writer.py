"""A tree in the YAML form; `parse` of the result gives the same tree again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nldsl.syntax import show
from nldsl.syntax import tree as t
from nldsl.syntax.build import ROLES

Data = str | list[Any] | dict[str, Any]
_PLAIN = re.compile(r"[A-Za-z0-9_(.][^\n\t\r]*")
_NEEDS_QUOTES = re.compile(r": |:$| #|\s$|[^\x20-\x7e]")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_FLOW_WIDTH = 90


def to_yaml(tree: t.Tree) -> str:
    """The tree in the YAML form, without comments.

    Example:
        >>> from nldsl.diagnostics import DiagnosticBag
        >>> from nldsl.source import SourceFile
        >>> from nldsl.syntax.parse import parse
        >>> print(to_yaml(parse(SourceFile("a.nl", "block f(x) { return 2 * x }"), DiagnosticBag())), end="")
        nldsl: 1
        block f:
          takes: [x]
          body:
            - return 2 * x
    """
    pairs = _merge_uses([_item(item) for item in tree.items])
    keys = [key for key, _ in pairs]
    data: dict[str, Data] = {"nldsl": str(tree.version)}
    if len(set(keys)) == len(keys):
        data |= dict(pairs)
    else:
        data["items"] = [{key: value} for key, value in pairs]
    return "\n".join(_lines(data, 0)) + "\n"


def _merge_uses(pairs: list[tuple[str, Data]]) -> list[tuple[str, Data]]:
    """Neighbouring `use` lines become one list."""
    found: list[tuple[str, Data]] = []
    for key, value in pairs:
        if key == "use" and found and found[-1][0] == "use":
            before = found[-1][1]
            found[-1] = ("use", [*(before if isinstance(before, list) else [before]), value])
        else:
            found.append((key, value))
    return found


# --- items -----------------------------------------------------------------------------------------


def _item(item: t.Item) -> tuple[str, Data]:
    match item:
        case t.Use():
            return "use", item.path.value
        case t.Definition():
            return f"{item.kind} {item.name.id}", _definition(item)
        case t.Train():
            return f"train {item.target.id}", _settings(item.body) or {"body": _body(item.body)}
        case t.Variant():
            return _variant(item)


def _definition(item: t.Definition) -> Data:
    data: dict[str, Data] = {}
    if item.params:
        data["takes"] = [show.param(p) for p in item.params]
    levels: dict[str, Data] = {}
    rest = list(item.body)
    while rest and isinstance(rest[0], t.LevelDecl) and rest[0].name.id not in levels:
        level = rest.pop(0)
        assert isinstance(level, t.LevelDecl)
        levels[level.name.id] = _level(level)
    if levels:
        data["levels"] = levels
    if rest or not levels:
        data["body"] = _body(tuple(rest))
    return data


def _level(level: t.LevelDecl) -> dict[str, Data]:
    data: dict[str, Data] = {"every": show.clock(level.clock)}
    memories = {show.names(m.names): show.memory(m) for m in level.body if isinstance(m, t.MemoryDecl)}
    groups = {_selectors(g): show.rule(g) for g in level.body if isinstance(g, t.Group)}
    if level.body and len(memories) == len(level.body):
        return data | {"memories": memories}
    if level.body and len(groups) == len(level.body):
        return data | {"groups": groups}
    return data | {"body": _body(level.body)}


def _selectors(group: t.Group) -> str:
    """The key of a group; a lone pattern that cannot be taken for names stands without quotes."""
    first = group.selectors[0]
    if len(group.selectors) == 1 and isinstance(first, t.String) and first.value[:1] == "*":
        return first.value
    return show.selectors(group)


def _settings(body: tuple[t.Statement, ...]) -> dict[str, Data] | None:
    """The body of `train` as a mapping, or `None` if its order or its names do not allow that."""
    data: dict[str, Any] = {}
    last = ""
    for node in body:
        if isinstance(node, t.Setting) and node.key.id not in (*ROLES, *data, "levels", "groups", "body"):
            data[node.key.id] = last = show.quantity(node)
        elif isinstance(node, t.LevelDecl) and (last == "levels" or "levels" not in data):
            levels = data.setdefault("levels", {})
            if node.name.id in levels:
                return None
            levels[node.name.id] = _level(node)
            last = "levels"
        else:
            return None
    return data or None


def _variant(item: t.Variant) -> tuple[str, Data]:
    head = f"variant {item.name.id} of {item.base.id}"
    named = {a.name: a.value for a in item.args if a.name}
    if len(named) != len(item.args):
        head += f"({show.arguments(item.args)})"
        named = {}
    data: dict[str, Data] = {}
    if named:
        data["with"] = {name: show.show(value) for name, value in named.items()}
    short = _short(item.body)
    data |= short if short is not None else {"body": _body(item.body)}
    return head, data or ""


def _short(body: tuple[t.Statement, ...]) -> dict[str, Data] | None:
    """`levels` and `train` of a variant's short form, or `None` if the body does not have that form."""
    levels: dict[str, Data] = {}
    train: dict[str, Data] = {}
    for node in body:
        if isinstance(node, t.LevelEdit) and not train and node.path.value not in levels:
            levels[node.path.value] = show.every(node.clock)
            continue
        entry = _train_entry(node)
        if entry is None or entry[0] in train:
            return None
        train[entry[0]] = entry[1]
    data: dict[str, Data] = {}
    if levels:
        data["levels"] = levels
    if train:
        data["train"] = train
    return data


def _train_entry(node: t.Statement) -> tuple[str, str] | None:
    if isinstance(node, t.Group):
        key = _selectors(node)
        return (key, show.rule(node)) if key in ROLES or not _NAME.fullmatch(key) else None
    if isinstance(node, t.Setting) and node.key.id not in (*ROLES, "levels", "groups", "body"):
        return node.key.id, show.quantity(node)
    return None


# --- statements ------------------------------------------------------------------------------------


def _body(body: tuple[t.Statement, ...]) -> list[Any]:
    return [_statement(node) for node in body]


def _statement(node: t.Statement) -> Data:
    writers: dict[type, Callable[[Any], Data]] = {
        t.LevelDecl: lambda n: {"level": n.name.id, **_level(n)},
        t.Repeat: lambda n: {"repeat": show.show(n.count), "body": _body(n.body)},
        t.For: lambda n: {"for": f"{show.names(n.names)} in {show.show(n.items)}", "body": _body(n.body)},
        t.Every: lambda n: {"every": show.clock(n.clock), "body": _body(n.body)},
        t.If: _if,
    }
    if type(node) in writers:
        return writers[type(node)](node)
    if isinstance(node, t.Write) and node.braces:
        return _write(node)
    return "  ".join(show.line(node))


def _if(node: t.If) -> Data:
    data: dict[str, Data] = {"if": show.show(node.condition), "body": _body(node.body)}
    return data | {"else": _body(node.orelse)} if node.orelse else data


def _write(node: t.Write) -> Data:
    data: dict[str, Data] = {"write": ("each of " if node.each else "") + show.names(node.targets)}
    tail = _clauses(node.clauses)
    terms = [
        {"key": show.show(term.key), "value": show.show(term.value), **_clauses(term.clauses)}
        for term in node.terms
    ]
    if node.each and len(terms) == 1 and not tail:
        return data | terms[0]
    return data | {"terms": terms} | tail


def _clauses(node: t.Clauses) -> dict[str, Data]:
    data: dict[str, Data] = {}
    for word in ("minimize", "weighted", "by", "retain", "toward", "project"):
        value = getattr(node, word)
        if value is not None:
            data[word] = show.show(value)
    if node.over is not None:
        data["over"] = show.tokens(node.over)
    if node.gradient_every is not None:
        data["gradient"] = f"every {show.tokens(node.gradient_every)}"
    if node.at_commit:
        data["at"] = "commit"
    return data


# --- YAML text -------------------------------------------------------------------------------------


def _lines(data: Data, indent: int) -> list[str]:
    """Block-style lines of a mapping or a list."""
    pad = "  " * indent
    if isinstance(data, dict):
        return [
            line for key, value in data.items() for line in _entry(f"{pad}{_scalar(key)}:", value, indent)
        ]
    lines: list[str] = []
    for item in data:
        if isinstance(item, str):
            lines.append(f"{pad}- {_scalar(item)}")
            continue
        inner = _lines(item, indent + 1)
        lines += [f"{pad}- {inner[0].lstrip()}", *inner[1:]]
    return lines


def _entry(head: str, value: Data, indent: int) -> list[str]:
    if isinstance(value, str):
        return [f"{head} {_scalar(value)}" if value else head]
    if not value:
        return [f"{head} {'{}' if isinstance(value, dict) else '[]'}"]
    if (
        isinstance(value, list)
        and head.lstrip() in ("takes:", "use:")
        and all(isinstance(v, str) for v in value)
    ):
        flow = f"{head} [{', '.join(_scalar(v, flow=True) for v in value)}]"
        if len(flow) <= _FLOW_WIDTH:
            return [flow]
    return [head, *_lines(value, indent + 1)]


def _scalar(text: str, *, flow: bool = False) -> str:
    """A text as a plain scalar if YAML reads it back unchanged, else in double quotes."""
    plain = _PLAIN.fullmatch(text) and not _NEEDS_QUOTES.search(text)
    if plain and not (flow and re.search(r"[,\[\]{}:=]", text)):
        return text
    return '"' + "".join(_escape(sign) for sign in text) + '"'


def _escape(sign: str) -> str:
    if sign in '"\\':
        return "\\" + sign
    if " " <= sign <= "~":
        return sign
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
