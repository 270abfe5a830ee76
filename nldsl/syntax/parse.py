"""`parse`: a file, text or YAML, becomes a tree."""

from __future__ import annotations

from nldsl.diagnostics import Diagnostic, DiagnosticBag, Edit
from nldsl.source import SourceFile, Span
from nldsl.syntax import tree as t
from nldsl.syntax.limits import MAX_BYTES
from nldsl.syntax.reader import read_text
from nldsl.syntax.scan import Place
from nldsl.syntax.yaml_reader import read_yaml


def parse(file: SourceFile, bag: DiagnosticBag) -> t.Tree:
    """The tree of `file`; what is wrong goes to `bag` and faulty statements are left out.

    Files named `.yaml` or `.yml` are read as YAML, all others as text.  Never raises on user input.

    Example:
        >>> bag = DiagnosticBag()
        >>> tree = parse(SourceFile("a.nl", "block twice(x) { return 2 * x }"), bag)
        >>> tree.items[0].name.id, bag.items
        ('twice', [])
    """
    whole = Span(file, 0, len(file.text))
    if not _within_limits(file, bag):
        return t.Tree(span=whole, items=())
    found = DiagnosticBag()
    items = read_items(file, found)
    for diagnostic in sorted(found.items, key=lambda d: d.span.start if d.span else 0):
        bag.add(diagnostic)
    return t.Tree(span=whole, items=items)


def read_items(file: SourceFile, bag: DiagnosticBag) -> tuple[t.Item, ...]:
    """The items of a file whose size is known to be fine."""
    read = read_yaml if is_yaml(file.name) else read_text
    return read(Place.of(file, bag))


def is_yaml(name: str) -> bool:
    """Whether a file of this name is read as YAML."""
    return name.lower().endswith((".yaml", ".yml"))


def _within_limits(file: SourceFile, bag: DiagnosticBag) -> bool:
    if len(file.text) > MAX_BYTES:
        bag.add(
            Diagnostic(
                "NL0802",
                f"the file has {len(file.text)} characters; {MAX_BYTES} are read at most",
                Span(file, 0, 0),
                help="split it into several files and join them with `use`",
            )
        )
        return False
    nul = file.text.find("\0")
    if nul >= 0:
        bag.add(
            Diagnostic(
                "NL0804",
                "the file contains a zero byte",
                Span(file, nul, nul + 1),
                help="save it as plain UTF-8 text",
                edit=Edit(Span(file, nul, nul + 1), "", "remove the zero byte"),
            )
        )
    return nul < 0
