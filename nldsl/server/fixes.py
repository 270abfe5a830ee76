"""Quick fixes: the edits that findings carry, and the names they suggest."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.diagnostics import fix_of
from nldsl.server.document import Document, Remark


@dataclass(frozen=True)
class Fix:
    """A change of the document that answers a finding."""

    title: str
    remark: Remark
    start: int
    end: int
    text: str


def fixes(document: Document, start: int, end: int) -> list[Fix]:
    """The fixes of all findings that touch a range.

    Example:
        >>> document = Document("a.nl", "block f(x) { return sigmod(x) }")
        >>> [(fix.title, fix.text) for fix in fixes(document, 20, 20)]
        [('change `sigmod` to `sigmoid`', 'sigmoid')]
    """
    touched = [r for r in document.remarks if r.start <= end and start <= r.end]
    found = [_fix(document, remark) for remark in touched]
    return [fix for fix in found if fix is not None]


def _fix(document: Document, remark: Remark) -> Fix | None:
    edit = fix_of(remark.finding)
    place = document.sections.place(edit.span) if edit is not None else None
    if edit is None or place is None:
        return None
    return Fix(edit.title, remark, *place, edit.text)
