"""Definition, references, rename, outline and folding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nldsl.library import PRIMITIVES
from nldsl.server.document import Document, Place
from nldsl.server.occurrences import LOCAL, TOP, Occurrence, Symbol
from nldsl.server.texts import header
from nldsl.spec.definition_checks import BUILT_IN_MAPS, RESERVED
from nldsl.spec.loader import Unit
from nldsl.syntax import show, tree

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class RenameError(ValueError):
    """A name cannot be changed, or not to this; the message says why."""


def definition(document: Document, offset: int) -> Place | None:
    """Where the name at `offset` is defined: here, in a file in use, or in the library.

    Example:
        >>> definition(Document("a.nl", "block f(x) { return x }"), 20)
        Place(start=8, end=9, path=None)
    """
    occurrence = document.names.at(offset)
    if occurrence is not None:
        return _defined(document, occurrence)
    use = _use_at(document, offset)
    if use is None:
        return None
    known = [u for u in document.unit.uses if u.path is not None and u.path.match(Path(use).name)]
    return Place(0, 0, known[0].path) if known else None


def _defined(document: Document, occurrence: Occurrence) -> Place | None:
    symbol = occurrence.symbol
    binding = document.names.binding(symbol, occurrence.start)
    if binding is not None:
        return Place(binding.start, binding.end)
    if symbol.kind in TOP:
        return _elsewhere(document.unit, symbol.kind, symbol.name, "")
    kind, _, title = symbol.scope.partition(" ")
    return _elsewhere(document.unit, kind, title, symbol.name) if symbol.kind == "parameter" else None


def _elsewhere(unit: Unit, kind: str, name: str, parameter: str) -> Place | None:
    """A definition of another file, or one of its parameters."""
    found = unit.find(kind, name)
    if found is None or found[1].path is None:
        return None
    item, home = found
    spans = {"": item.name.span}
    if isinstance(item, tree.Definition):
        spans |= {p.name.id: p.name.span for p in item.params}
    span = spans.get(parameter)
    return Place(span.start, span.end, home.path) if span is not None else None


def _use_at(document: Document, offset: int) -> str | None:
    """The path of the `use` line at an offset."""
    for item in document.sections.items:
        if isinstance(item, tree.Use):
            place = document.sections.place(item.path.span)
            if place is not None and place[0] <= offset <= place[1]:
                return item.path.value
    return None


def references(document: Document, offset: int, declarations: bool = True) -> list[Occurrence]:
    """Every place of the document where the name at `offset` means the same."""
    occurrence = document.names.at(offset)
    if occurrence is None:
        return []
    return [o for o in document.names.of(occurrence.symbol) if declarations or not o.binds]


def renamable(document: Document, offset: int) -> Occurrence:
    """The name at `offset`, if it is one of this document's own.

    Raises:
        RenameError: it is not.
    """
    occurrence = document.names.at(offset)
    if occurrence is None:
        raise RenameError("there is no name here")
    symbol = occurrence.symbol
    if symbol.kind in ("word", "primitive", "schedule") or symbol.name in RESERVED:
        raise RenameError(f"`{symbol.name}` is a word of the language")
    if not any(o.binds for o in document.names.of(symbol)):
        raise RenameError(f"`{symbol.name}` is defined in another file")
    return occurrence


def rename(document: Document, offset: int, name: str) -> list[tuple[int, int, str]]:
    """The edits that call the thing at `offset` `name`: (start, end, text).

    Raises:
        RenameError: it is not defined here, or `name` is no name, or means something else already.
    """
    symbol = renamable(document, offset).symbol
    if not _NAME.fullmatch(name):
        raise RenameError(f"`{name}` is not a name: letters, digits and `_`, no digit first")
    taken = {"block": PRIMITIVES.keys(), "map": BUILT_IN_MAPS}.get(symbol.kind, frozenset())
    if name in RESERVED or name in taken:
        raise RenameError(f"`{name}` is a word of the language")
    if name != symbol.name and _means_something(document, symbol, name):
        raise RenameError(f"`{name}` means something else here")
    edits = [(o.start, o.end, name) for o in document.names.of(symbol)]
    if symbol.kind == "level":
        edits += _level_paths(document, symbol, name)
    return edits


def _means_something(document: Document, symbol: Symbol, name: str) -> bool:
    """Whether `name` is taken in the scope of `symbol`."""
    others = {o.symbol for o in document.names.all if o.symbol.name == name}
    if symbol.kind in LOCAL:
        return any(s.kind in LOCAL and s.scope == symbol.scope for s in others)
    return any(s.kind == symbol.kind for s in others)


def _level_paths(document: Document, symbol: Symbol, name: str) -> list[tuple[int, int, str]]:
    """The level in paths such as `"cms.f[1]"` of variants."""
    block = symbol.scope.partition(" ")[2]
    wanted = re.compile(rf"(?<![\w]){re.escape(block)}(?:\[[^\]]*\])?\.({re.escape(symbol.name)})(?!\w)")
    edits = []
    for item in document.sections.items:
        for node in item.body if isinstance(item, tree.Variant) else ():
            if isinstance(node, tree.LevelEdit):
                place = document.sections.place(node.path.span)
                for match in wanted.finditer(document.text, *place) if place else ():
                    edits.append((match.start(1), match.end(1), name))
    return edits


# --- outline and folding ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One line of the outline, with what lies inside."""

    name: str
    detail: str
    kind: str
    start: int
    end: int
    name_start: int
    name_end: int
    children: tuple[Entry, ...] = ()


def outline(document: Document) -> list[Entry]:
    """Definitions with their levels and memories, `train` and variants."""
    entries = [_item(document, item) for item in document.sections.items]
    return [entry for entry in entries if entry is not None]


def _item(document: Document, item: tree.Item) -> Entry | None:
    if isinstance(item, tree.Use):
        return None
    name = item.target if isinstance(item, tree.Train) else item.name
    if isinstance(item, tree.Train):
        title, detail, kind = f"train {name.id}", "", "train"
    else:
        title, kind = name.id, "variant" if isinstance(item, tree.Variant) else item.kind
        detail = header(item).replace(f" {name.id}", "", 1)
    return _entry(document, title, detail, kind, item, name, _children(document, item.body))


def _children(document: Document, body: tuple[Any, ...]) -> tuple[Entry, ...]:
    """Levels and memories at any depth; other statements only lend theirs."""
    found: list[Entry] = []
    for node in body:
        inner = _children(document, getattr(node, "body", ())) if not isinstance(node, tree.Term) else ()
        if isinstance(node, tree.LevelDecl):
            detail = show.clock(node.clock)
            entry = _entry(document, node.name.id, detail, "level", node, node.name, inner)
            found += [entry] if entry is not None else []
            continue
        if isinstance(node, tree.MemoryDecl):
            for name in node.names:
                entry = _entry(document, name.id, show.memory(node), "memory", name, name, ())
                found += [entry] if entry is not None else []
        found += inner
    return tuple(found)


def _entry(
    document: Document,
    title: str,
    detail: str,
    kind: str,
    node: tree.Node,
    name: tree.Name,
    children: tuple[Entry, ...],
) -> Entry | None:
    place, where = document.sections.place(node.span), document.sections.place(name.span)
    if place is None or where is None:
        return None
    start, end = min(place[0], where[0]), max(place[1], where[1])
    return Entry(title, detail, kind, start, end, *where, children)


def foldings(document: Document) -> list[tuple[int, int]]:
    """First and last line, from zero, of every body that covers several lines, and of comments."""
    found: list[tuple[int, int]] = []
    stack: list[Any] = list(document.sections.items)
    while stack:
        node = stack.pop()
        stack += [*getattr(node, "body", ()), *getattr(node, "orelse", ())]
        place = document.sections.place(node.span)
        if place is not None:
            first, last = (document.lines.position(offset)[0] for offset in place)
            if last > first:
                found.append((first, last))
    return sorted({*found, *_comment_runs(document.text)})


def _comment_runs(text: str) -> list[tuple[int, int]]:
    """Runs of lines that are comments only."""
    runs: list[tuple[int, int]] = []
    first: int | None = None
    for number, line in enumerate([*text.splitlines(), ""]):
        if line.lstrip().startswith("#"):
            first = number if first is None else first
        elif first is not None:
            if number - 1 > first:
                runs.append((first, number - 1))
            first = None
    return runs
