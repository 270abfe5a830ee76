"""What stands in front of a cursor, read from words alone: it works while the text is half written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from nldsl.server.document import Document
from nldsl.syntax.scan import Scanned, scan

_CONTINUES = frozenset(
    {"minimize", "over", "weighted", "by", "retain", "toward", "gradient", "at", "project"}
)
_HEAD = re.compile(
    r"^(block|model|map|objective|rule|train|variant)[ \t]+([A-Za-z_]\w*)", re.MULTILINE | re.ASCII
)


@dataclass
class Cursor:
    """The surroundings of a place in the text.

    `words` is the statement so far, `prefix` the word being typed, `calls` the calls that are open,
    innermost last: function, number of the argument, and the option names given so far.
    """

    inside: str = ""
    """`block`, `rule`, `train`, ... : the kind of item; empty at the outermost level."""
    title: str = ""
    words: list[str] = field(default_factory=list)
    prefix: str = ""
    start: int = 0
    calls: list[tuple[str, int, frozenset[str]]] = field(default_factory=list)
    braces: list[str] = field(default_factory=list)
    """First word of each header whose body is open, outermost first."""
    quiet: bool = False
    """In a comment or a string."""
    path: str = ""
    """In the string behind `use`: what it begins with."""
    parameters: dict[str, None] = field(default_factory=dict)
    variables: dict[str, None] = field(default_factory=dict)
    memories: dict[str, None] = field(default_factory=dict)
    indexed: bool = False
    """In the brackets of a read or a write."""

    @property
    def last(self) -> str:
        """The word or sign before the one being typed."""
        return self.words[-1] if self.words else ""


def cursor_at(document: Document, offset: int) -> Cursor:
    """The surroundings of `offset`.

    Example:
        >>> document = Document("a.nl", "block f(x) { y = linear(x, ou")
        >>> cursor = cursor_at(document, 29)
        >>> cursor.inside, cursor.calls, cursor.prefix, list(cursor.parameters)
        ('block', [('linear', 1, frozenset())], 'ou', ['x'])
    """
    section = document.sections.at(offset)
    text = section.file.text[: max(0, offset - section.start)]
    if document.yaml:
        text, head = _yaml_line(text)
        cursor = Cursor(head[0], head[1]) if head else Cursor()
        reader = _Reader(cursor, text)
        cursor.braces = [cursor.inside] if head else []
    else:
        cursor = Cursor()
        reader = _Reader(cursor, text)
    reader.run()
    cursor.start = offset - len(cursor.prefix)
    _names(document, cursor, offset)
    return cursor


def _yaml_line(text: str) -> tuple[str, tuple[str, str] | None]:
    """The statement of a YAML line, and the item it stands in."""
    heads = _HEAD.findall(text)
    line = text[text.rfind("\n") + 1 :]
    line = re.sub(r"^\s*(?:-\s+)?(?:[\w. ,\"\[\]*]+:\s+)?[\"']?", "", line)
    return line, heads[-1] if heads else None


def _names(document: Document, cursor: Cursor, offset: int) -> None:
    """Names of the definition around the cursor, as the last tree that could be read has them."""
    scope = f"{cursor.inside} {cursor.title}"
    statement = document.text.rfind("\n", 0, offset) + 1
    for occurrence in document.names.all:
        symbol = occurrence.symbol
        if symbol.scope != scope or not occurrence.binds or occurrence.start <= offset <= occurrence.end:
            continue
        if symbol.kind == "parameter":
            cursor.parameters.setdefault(symbol.name)
        elif symbol.kind == "memory":
            cursor.memories.setdefault(symbol.name)
        elif symbol.kind == "variable" and occurrence.start < statement:
            cursor.variables.setdefault(symbol.name)


class _Reader:
    """One pass over the words in front of the cursor."""

    def __init__(self, cursor: Cursor, text: str) -> None:
        self.cursor = cursor
        self.text = text
        self.open: list[tuple[str, str, int, set[str]]] = []
        self.assigned: dict[str, None] = {}

    def run(self) -> None:
        tokens = list(scan(self.text))
        for index, token in enumerate(tokens):
            last = index == len(tokens) - 1 and token.end == len(self.text)
            word = self.text[token.start : token.end]
            if last and token.kind == "name":
                self.cursor.prefix = word
            elif last and token.kind in ("comment", "unclosed"):
                self.cursor.quiet = True
                if self.cursor.words[-1:] == ["use"]:
                    self.cursor.path = word[1:] or " "
            else:
                self.take(token, word, self.following(tokens, index))
        if not self.cursor.words:
            self.cursor.variables.update(self.assigned)
        self.cursor.calls = [(n, i, frozenset(names)) for sign, n, i, names in self.open if sign == "(" and n]
        self.cursor.indexed = bool(self.open) and self.open[-1][0] == "["

    def following(self, tokens: list[Scanned], index: int) -> str:
        rest = (t for t in tokens[index + 1 :] if t.kind not in ("newline", "comment"))
        token = next(rest, None)
        return self.text[token.start : token.end] if token is not None else ""

    def take(self, token: Scanned, word: str, following: str) -> None:
        words = self.cursor.words
        if not words:
            # What a statement assigns has its value from the next statement on.
            self.cursor.variables.update(self.assigned)
            self.assigned.clear()
        if token.kind == "comment":
            return
        if token.kind == "newline":
            if not self.open and following not in _CONTINUES and words[-1:] != ["<-"]:
                words.clear()
            return
        if token.kind in ("semicolon", "brace", "unbrace"):
            self.bound(token.kind)
            return
        if token.kind == "open":
            self.open.append((word, words[-1] if words and words[-1].isidentifier() else "", 0, set()))
        elif token.kind == "close" and self.open:
            self.open.pop()
        elif word == "," and self.open:
            sign, name, number, names = self.open[-1]
            self.open[-1] = (sign, name, number + 1, names)
        elif word == "=" and self.open and words:
            self.open[-1][3].add(words[-1])
        words.append(word)
        self.declare(words)

    def bound(self, kind: str) -> None:
        """A statement ends, or a body begins or ends."""
        cursor = self.cursor
        if kind == "brace":
            cursor.braces.append(cursor.words[0] if cursor.words else "")
            if len(cursor.braces) == 1 and len(cursor.words) > 1:
                cursor.inside, cursor.title = cursor.words[0], cursor.words[1]
        elif kind == "unbrace" and cursor.braces:
            cursor.braces.pop()
            if not cursor.braces:
                cursor.inside = cursor.title = ""
                cursor.parameters, cursor.variables, cursor.memories = {}, {}, {}
        cursor.words.clear()
        self.open.clear()

    def declare(self, words: list[str]) -> None:
        """Names that the statement so far declares."""
        cursor, last = self.cursor, words[-1]
        named = [w for w in words[:-1] if w.isidentifier()]
        if not cursor.braces:
            opened = len(words) > 2 and words[2] == "(" and len(self.open) == 1
            if opened and last.isidentifier() and words[-2] in ("(", ","):
                cursor.parameters.setdefault(last)
        elif last == "=" and not self.open and words[0] == "memory":
            cursor.memories.update(dict.fromkeys(named[1:]))
        elif last == "=" and not self.open:
            self.assigned.update(dict.fromkeys(n for n in named if n not in cursor.memories))
        elif words[0] == "for" and last == "in":
            cursor.variables.update(dict.fromkeys(named[1:]))
