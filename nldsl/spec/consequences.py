"""One mistake, one report: what follows from a statement that could not be read is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from nldsl.diagnostics import Diagnostic
from nldsl.source import SourceFile, Span

_FOLLOWS = frozenset(
    {
        "NL0301",
        "NL0302",
        "NL0303",
        "NL0304",
        "NL0305",
        "NL0306",
        "NL0312",
        "NL0318",
        "NL0320",
        "NL0321",
        "NL0323",
        "NL0324",
        "NL0328",
        "NL0411",
        "NL0412",
        "NL0413",
        "NL0601",
    }
)
"""Findings that something is missing: a statement that could not be read may be what is missing."""
_UNREADABLE = ("NL01", "NL02", "NL0805", "NL0806", "NL0807", "NL0808")
_NAMED = re.compile(r"`(\w+)")
_WORD = re.compile(r"\w+")
_YAML_ITEM = re.compile(r"^( *)- ", re.MULTILINE)
_DEFINITION = re.compile(r"^(block|model|map|objective|rule|train|variant)\b", re.MULTILINE)


def without_consequences(
    findings: Iterable[Diagnostic], text_of: Callable[[SourceFile], object] = id
) -> list[Diagnostic]:
    """Findings without those that a faulty statement of the same file accounts for.

    A name is accounted for if it stands on a line that could not be read, a missing `return` if its
    definition holds such a line, a parameter that reaches no loss by any.  `text_of` tells which files are
    parts of one text.

    Example:
        >>> from nldsl.source import Span
        >>> file = SourceFile("a.nl", "y = +\\nz = y")
        >>> fault = Diagnostic("NL0101", "found `+`", Span(file, 4, 5))
        >>> follows = Diagnostic("NL0301", "unknown name `y`", Span(file, 10, 11))
        >>> [d.code for d in without_consequences([fault, follows])]
        ['NL0101']
    """
    found = list(findings)
    lines: dict[object, list[Lines]] = {}
    for finding in found:
        if finding.code.startswith(_UNREADABLE) and finding.span is not None and finding.severity == "error":
            file = finding.span.file
            places = [finding.span, *(label.span for label in finding.secondary if label.span.file is file)]
            lines.setdefault(text_of(file), []).extend(_whole_lines(s) for s in places)
    return [d for d in found if not (d.span and _accounted(d, lines.get(text_of(d.span.file), [])))]


Lines = tuple[SourceFile, int, int]
"""Lines of a file: where the first begins, where the last ends."""


def _whole_lines(span: Span) -> Lines:
    """The extent of the lines that a span stands on."""
    text = span.file.text
    stop = text.find("\n", span.end)
    start, end = text.rfind("\n", 0, span.start) + 1, len(text) if stop < 0 else stop
    if span.file.name.lower().endswith((".yaml", ".yml")):
        start, end = _whole_item(text, start, end)
    return span.file, start, end


def _whole_item(text: str, start: int, end: int) -> tuple[int, int]:
    """The item of a YAML list that lines belong to, the lines themselves if they belong to none."""
    first = max((m for m in _YAML_ITEM.finditer(text, 0, end)), key=lambda m: m.start(), default=None)
    if first is None:
        return start, end
    after = re.compile(rf"^ {{0,{len(first[1])}}}\S", re.MULTILINE).search(text, max(end, first.end()))
    return first.start(), after.start() if after else len(text)


def _accounted(finding: Diagnostic, faulty: list[Lines]) -> bool:
    span = finding.span
    if finding.code not in _FOLLOWS or span is None or not faulty:
        return False
    if finding.code == "NL0601":
        return True
    text = span.file.text
    if finding.code in ("NL0324", "NL0320"):
        after = _DEFINITION.search(text, span.end)
        end = after.start() if after and finding.code == "NL0324" else len(text)
        here = [(start, stop) for file, start, stop in faulty if file is span.file]
        return any(span.start <= stop and start < end for start, stop in here)
    words = {word for file, start, stop in faulty for word in _WORD.findall(file.text[start:stop])}
    # A bare `per head` reads `heads`.
    words |= {"heads"} & {f"{word}s" for word in words}
    return any(name in words for name in _NAMED.findall(finding.message))
