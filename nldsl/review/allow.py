"""`# allow NL0431: why`: an author who knows about a warning says so where it would stand.

The comment stands on a line of the place that is warned about, or on the lines above it.  Errors cannot be
allowed.  NL0332: a comment that allows what nobody says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nldsl.diagnostics import Diagnostic
from nldsl.source import SourceFile, Span

_ALLOW = re.compile(r"#\s*allow\s+(NL\d{4}(?:\s*,\s*NL\d{4})*)")
_CODE = re.compile(r"NL\d{4}")
_DEPENDS = frozenset({"NL0507"})
"""Warnings that depend on options of the check: a comment about them may be idle in one check only."""


@dataclass(frozen=True)
class Permit:
    """One code that a comment allows on the lines `first` to `last`."""

    code: str
    span: Span
    first: int
    last: int


def without_allowed(findings: Iterable[Diagnostic], files: Iterable[SourceFile]) -> list[Diagnostic]:
    """Findings without the warnings that comments allow; `files` are looked at for idle comments.

    Example:
        >>> file = SourceFile("a.nl", "# allow NL0323: for the reader\\ny = x")
        >>> found = Diagnostic("NL0323", "`y` is never read", Span(file, 31, 32), severity="warning")
        >>> without_allowed([found], [file])
        []
    """
    found = list(findings)
    if any(d.severity == "error" for d in found):
        return found
    permits = {id(f): list(_permits(f)) for f in {id(f): f for f in _files(found, files)}.values()}
    used: set[Permit] = set()
    kept = [d for d in found if not _allowed(d, permits, used)]
    for file in files:
        for permit in permits[id(file)]:
            if permit not in used and permit.code not in _DEPENDS:
                kept.append(_idle(permit))
    return kept


def _files(findings: Iterable[Diagnostic], files: Iterable[SourceFile]) -> Iterator[SourceFile]:
    yield from files
    yield from (d.span.file for d in findings if d.span is not None)


def _permits(file: SourceFile) -> Iterator[Permit]:
    """The comments of a file; one that is a line of its own holds for the statement below it."""
    if "allow" not in file.text:
        return
    for match in _ALLOW.finditer(file.text):
        line = file.position(match.start())[0]
        last = line
        while file.line(last).lstrip().startswith("#"):
            last += 1
        for code in _CODE.finditer(match.group(1)):
            start = match.start(1) + code.start()
            yield Permit(code.group(), Span(file, start, start + len(code.group())), line, last)


def _allowed(finding: Diagnostic, permits: dict[int, list[Permit]], used: set[Permit]) -> bool:
    span = finding.span
    if span is None:
        return False
    first, last = span.line, span.file.position(max(span.start, span.end - 1))[0]
    hits = [
        p for p in permits[id(span.file)] if p.code == finding.code and p.first <= last and first <= p.last
    ]
    used.update(hits)
    return bool(hits)


def _idle(permit: Permit) -> Diagnostic:
    return Diagnostic(
        "NL0332",
        f"nothing here is a {permit.code}, so there is nothing to allow",
        permit.span,
        "allows nothing",
        "warning",
        help="remove the comment, or put it on the line that is warned about",
    )
