"""Quick fixes: the edits that findings carry, and the names they suggest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nldsl.server.document import Document, Remark

_SUGGESTED = re.compile(r"did you mean `([^`]+)`\?")
_NAMED = re.compile(r"`([^`]+)`")


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
    found = [fix for remark in touched for fix in (_edit(document, remark), _name(document, remark))]
    return [fix for fix in found if fix is not None]


def _edit(document: Document, remark: Remark) -> Fix | None:
    edit = remark.finding.edit
    place = document.sections.place(edit.span) if edit is not None else None
    if edit is None or place is None:
        return None
    return Fix(edit.title, remark, *place, edit.text)


def _name(document: Document, remark: Remark) -> Fix | None:
    """The nearest name instead of the unknown one."""
    suggested = _SUGGESTED.search(remark.finding.help)
    if suggested is None or remark.finding.edit is not None:
        return None
    text = document.text[remark.start : remark.end]
    for wrong in _NAMED.findall(remark.finding.message):
        places = [m.start() for m in re.finditer(rf"(?<!\w){re.escape(wrong)}(?!\w)", text)]
        if len(places) == 1:
            at = remark.start + places[0]
            title = f"change `{wrong}` to `{suggested.group(1)}`"
            return Fix(title, remark, at, at + len(wrong), suggested.group(1))
    return None
