"""One mistake, one report: what follows from a statement that could not be read is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nldsl.diagnostics import Diagnostic
from nldsl.source import SourceFile

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
    }
)
"""Findings that something is missing: a statement that could not be read may be what is missing."""
_UNREADABLE = ("NL01", "NL02", "NL0805", "NL0806", "NL0807", "NL0808")
_NAMED = re.compile(r"`(\w+)")
_WORD = re.compile(r"\w+")
_DEFINITION = re.compile(r"^(block|model|map|objective|rule|train|variant)\b", re.MULTILINE)


def without_consequences(findings: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Findings without those that a faulty statement of the same file accounts for.

    A name is accounted for if it stands on a line that could not be read, a missing `return` if its
    definition holds such a line.

    Example:
        >>> from nldsl.source import Span
        >>> file = SourceFile("a.nl", "y = +\\nz = y")
        >>> fault = Diagnostic("NL0101", "found `+`", Span(file, 4, 5))
        >>> follows = Diagnostic("NL0301", "unknown name `y`", Span(file, 10, 11))
        >>> [d.code for d in without_consequences([fault, follows])]
        ['NL0101']
    """
    found = list(findings)
    lines: dict[int, list[tuple[int, int]]] = {}
    for finding in found:
        if finding.code.startswith(_UNREADABLE) and finding.span is not None and finding.severity == "error":
            file = finding.span.file
            places = [finding.span, *(label.span for label in finding.secondary if label.span.file is file)]
            lines.setdefault(id(file), []).extend(_whole_lines(file, s.start, s.end) for s in places)
    return [d for d in found if not _accounted(d, lines)]


def _whole_lines(file: SourceFile, start: int, end: int) -> tuple[int, int]:
    """The extent of the lines that characters `start` to `end` stand on."""
    stop = file.text.find("\n", end)
    return file.text.rfind("\n", 0, start) + 1, len(file.text) if stop < 0 else stop


def _accounted(finding: Diagnostic, lines: dict[int, list[tuple[int, int]]]) -> bool:
    span = finding.span
    if finding.code not in _FOLLOWS or span is None or id(span.file) not in lines:
        return False
    faulty = lines[id(span.file)]
    text = span.file.text
    if finding.code in ("NL0324", "NL0320"):
        after = _DEFINITION.search(text, span.end)
        end = after.start() if after and finding.code == "NL0324" else len(text)
        return any(span.start <= stop and start < end for start, stop in faulty)
    words = {word for start, stop in faulty for word in _WORD.findall(text[start:stop])}
    return any(name in words for name in _NAMED.findall(finding.message))
