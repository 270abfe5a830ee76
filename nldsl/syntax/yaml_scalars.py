"""What every part of the YAML reader needs: scalars as statements, mappings with known keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from nldsl.diagnostics import did_you_mean
from nldsl.source import Span
from nldsl.syntax import tree as t
from nldsl.syntax.build import FaultyStatementError
from nldsl.syntax.reader import Reader
from nldsl.syntax.scan import Place
from nldsl.syntax.split import split
from nldsl.syntax.yaml_nodes import Mapping, Scalar, Sequence, Yaml, place_of

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

_LONGEST = 70
"""A text in a help is no longer than this."""

Entries = dict[str, tuple[Scalar, Yaml]]
"""A mapping: by the text of a key, the key and its value."""


class YamlScalars:
    """Reads single nodes of a YAML file and reports those that are of the wrong kind."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def fault(self, code: str, message: str, node: Yaml, help: str) -> FaultyStatementError:
        self.place.report(code, message, (node.start, node.end), help=help)
        return FaultyStatementError(message)

    def span(self, node: Yaml, to: Yaml | None = None) -> Span:
        return self.place.locate(node.start, max((to or node).end, node.start))

    def scalar(self, node: Yaml, what: str) -> Scalar:
        if not isinstance(node, Scalar):
            kind = "list" if isinstance(node, Sequence) else "mapping"
            raise self.fault(
                "NL0206",
                f"found a {kind}, expected {what}",
                node,
                f"write `{text}`" if (text := as_text(node)) else "write it on one line, quoted if needed",
            )
        return node

    def mapping(self, node: Yaml, keys: tuple[str, ...] | None, what: str) -> Entries:
        """The entries of a mapping by key; with `keys` given, no other may stand there."""
        if not isinstance(node, Mapping):
            kind = "list" if isinstance(node, Sequence) else "text"
            raise self.fault(
                "NL0206", f"found {kind}, expected the mapping of {what}", node, f"keys: {_quoted(keys)}"
            )
        for key, _ in node.entries:
            if keys is not None and key.value not in keys:
                help = did_you_mean(key.value, keys) or f"keys: {_quoted(keys)}"
                self.fault("NL0205", f"unknown key `{key.value}` in {what}", key, help)
        return {key.value: (key, value) for key, value in node.entries}

    def sequence(self, node: Yaml) -> tuple[Yaml, ...]:
        """The items of a list; anything else counts as a list of one."""
        return node.items if isinstance(node, Sequence) else (node,)

    def parse(self, node: Yaml, entry: str, what: str) -> tuple[Reader, Any]:
        """The concrete tree of a scalar, and the reader to build it with."""
        scalar = self.scalar(node, what)
        place = place_of(scalar, self.place)
        reader = Reader(place)
        if not scalar.value.strip():
            raise self.fault("NL0207", f"nothing stands here, expected {what}", scalar, f"write {what}")
        pieces = split(place)
        if len(pieces) != 1 or pieces[0].body is not None or pieces[0].broken:
            if not (pieces and pieces[0].broken):
                raise self.fault(
                    "NL0206", f"found several statements, expected {what}", scalar, f"write {what}"
                )
            raise FaultyStatementError
        return reader, reader.concrete(pieces[0].start, pieces[0].end, entry, "body")

    def build(self, node: Yaml, entry: str, what: str) -> Any:
        """The node a scalar stands for."""
        reader, concrete = self.parse(node, entry, what)
        return reader.builder.top(concrete)

    def expr(self, node: Yaml) -> t.Expr:
        """A value: a scalar, or a YAML list of values."""
        if isinstance(node, Sequence):
            return t.ListExpr(span=self.span(node), items=tuple(self.expr(item) for item in node.items))
        return self.build(node, "expr", "a value")  # type: ignore[no-any-return]

    def clock(self, node: Yaml) -> t.Clock:
        """`16 tokens`, `every 16 tokens` or `never`."""
        scalar = self.scalar(node, "a clock")
        entry = "clock" if re.match(r"\s*every\b", scalar.value) else "clock_value"
        return self.build(scalar, entry, "a clock such as `16 tokens`")  # type: ignore[no-any-return]

    def each(self, step: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
        """The results of `step` for all arguments, faulty ones left out; a step may give several nodes."""
        found: list[Any] = []
        for given in arguments:
            try:
                result = step(*given)
            except FaultyStatementError:
                continue
            found.extend(result if isinstance(result, tuple) else (result,))
        return tuple(found)

    def name(self, key: Scalar, text: str) -> t.Name:
        """A name that stands in a key."""
        if not NAME.fullmatch(text):
            raise self.fault(
                "NL0206", f"`{text}` is not a name", key, "names consist of letters, digits and `_`"
            )
        at = key.value.rfind(text)
        return t.Name(span=place_of(key, self.place).locate(at, at + len(text)), id=text)

    def need(self, parts: Entries, key: str, node: Yaml) -> Yaml:
        if key not in parts:
            wanted = f"did you mean `{key}`?"
            if any(d.code == "NL0205" and d.help == wanted for d in self.place.bag.items):
                raise FaultyStatementError
            raise self.fault("NL0207", f"key `{key}` is missing", node, f"add `{key}:`")
        return parts[key][1]


def _quoted(keys: tuple[str, ...] | None) -> str:
    return ", ".join(f"`{key}`" for key in keys or ()) or "names"


def as_text(node: Yaml) -> str:
    """What a mapping says in the words of the language: `heads: 4` is `heads = 4`; empty where it is unclear.

    A mapping in a mapping is a call: `gd: {lr: gate}` is `gd(lr = gate)`.
    """
    if isinstance(node, Scalar):
        return node.value if node.value and "\n" not in node.value else ""
    if not isinstance(node, Mapping) or not node.entries:
        return ""
    parts = []
    for key, value in node.entries:
        inner = as_text(value)
        if not inner or not key.value.isidentifier():
            return ""
        parts.append(f"{key.value}({inner})" if isinstance(value, Mapping) else f"{key.value} = {inner}")
    text = ", ".join(parts)
    return text if len(text) <= _LONGEST else ""
