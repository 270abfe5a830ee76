"""Semantic tokens: what each name is, which no grammar of regular expressions can know."""

from __future__ import annotations

from nldsl.server.document import Document
from nldsl.server.lines import units

TYPES = ("function", "class", "type", "parameter", "variable", "property", "namespace", "keyword")
MODIFIERS = ("declaration", "defaultLibrary")
_TYPE_OF = {
    "primitive": "function",
    "schedule": "function",
    "block": "class",
    "model": "class",
    "map": "type",
    "objective": "type",
    "rule": "type",
    "parameter": "parameter",
    "variable": "variable",
    "memory": "property",
    "level": "namespace",
    "word": "keyword",
}


def semantic_tokens(document: Document) -> list[int]:
    """All names in the encoding of the protocol: five numbers each, positions relative to the one before.

    Example:
        >>> semantic_tokens(Document("a.nl", "map m(z) { return z }"))[:10]
        [0, 4, 1, 2, 1, 0, 2, 1, 3, 1]
    """
    data: list[int] = []
    line = column = 0
    for occurrence in document.names.all:
        symbol = occurrence.symbol
        here = document.lines.position(occurrence.start)
        modifiers = int(occurrence.binds) | (2 if symbol.kind in ("primitive", "schedule") else 0)
        start = here[1] - column if here[0] == line else here[1]
        length = units(document.text[occurrence.start : occurrence.end])
        data += [here[0] - line, start, length, TYPES.index(_TYPE_OF[symbol.kind]), modifiers]
        line, column = here
    return data
