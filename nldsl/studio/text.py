"""The text in the editor as a program, and places in it as a browser counts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nldsl.diagnostics import DiagnosticBag, SpecError
from nldsl.source import SourceFile
from nldsl.spec import elaborate
from nldsl.spec.loader import Bundle, Opened, standard_library
from nldsl.spec.program import Program
from nldsl.syntax import tree

PROBE_WIDTH = 64
"""The width of a block's inputs where nothing calls it."""


def to_units(text: str, offset: int) -> int:
    """A character offset in UTF-16 units, as browsers count.

    Example:
        >>> to_units("\\N{SNAKE}x", 1)
        2
    """
    return offset if text.isascii() else len(text[:offset].encode("utf-16-le")) // 2


def to_offset(text: str, units: int) -> int:
    """The inverse of `to_units`; beyond the end, the end.

    Example:
        >>> to_offset("\\N{SNAKE}x", 2), to_offset("ab", 9)
        (1, 2)
    """
    if text.isascii():
        return max(0, min(units, len(text)))
    raw = text.encode("utf-16-le")[: max(0, 2 * units)]
    return len(raw.decode("utf-16-le", "ignore"))


def program_of(name: str, text: str, path: Path | None, target: tuple[str, str] | None) -> Program:
    """The program of `text` as if it stood in `path`, so that its `use` lines find their files.

    target: (kind, name) of what to draw; left out: the last model, else the last block.

    Raises:
        SpecError: the text has errors.
    """
    bag = DiagnosticBag()
    root = path.resolve().parent if path is not None else None
    unit = Opened(root, standard_library(), bag).enter(SourceFile(name, text), path, ())
    bag.raise_if_errors()
    chosen = target if target in list(targets(unit.tree)) else None
    kind, called = chosen or next(iter(targets(unit.tree)), ("", ""))
    if not called:
        raise SpecError(bag.items)
    block = called if kind == "block" else None
    widths = {"dim": PROBE_WIDTH} if kind == "block" else {}
    bundle = Bundle(unit, (kind, called))
    program = elaborate(bundle, block=block, arguments=widths, bag=bag)
    bag.raise_if_errors()
    if program is None:
        raise SpecError(bag.items)
    return program


def targets(parsed: tree.Tree) -> Iterator[tuple[str, str]]:
    """What can be drawn, the default first: models and variants from the last to the first, then blocks."""
    found = [pair for item in parsed.items for pair in _named(item)]
    for wanted in ("model", "block"):
        yield from (pair for pair in reversed(found) if pair[0] == wanted)


def _named(item: tree.Item) -> Iterator[tuple[str, str]]:
    if isinstance(item, tree.Variant):
        yield "model", item.name.id
    elif isinstance(item, tree.Definition) and item.kind in ("model", "block"):
        yield item.kind, item.name.id
