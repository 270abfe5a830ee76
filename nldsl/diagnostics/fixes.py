"""Fixes: the edit that answers a finding, and a text with many of them made at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from nldsl.diagnostics.diagnostic import Diagnostic, Edit
from nldsl.source import Span

_SUGGESTED = re.compile(r"did you mean `([^`]+)`\?")
_SHORT = 2
"""Names of so few letters are too much alike: the near one is suggested, not written."""
_NAMED = re.compile(r"`([^`]+)`")


def fix_of(finding: Diagnostic) -> Edit | None:
    """The edit a finding carries, or the one its "did you mean" amounts to; `None` if there is none.

    Example:
        >>> from nldsl.source import SourceFile
        >>> span = Span(SourceFile("a.nl", "y = sigmod(x)"), 4, 10)
        >>> fix_of(Diagnostic("NL0302", "no `sigmod`", span, help="did you mean `sigmoid`?")).text
        'sigmoid'
    """
    if finding.edit is not None:
        return finding.edit
    suggested = _SUGGESTED.search(finding.help)
    if suggested is None or finding.span is None:
        return None
    text, right = finding.span.text, suggested.group(1)
    for wrong in get_close_matches(right, _NAMED.findall(finding.message), cutoff=0.5):
        places = [m.start() for m in re.finditer(rf"(?<!\w){re.escape(wrong)}(?!\w)", text)]
        if len(places) == 1 and wrong != right and len(wrong) > _SHORT:
            at = finding.span.start + places[0]
            span = Span(finding.span.file, at, at + len(wrong))
            return Edit(span, right, f"change `{wrong}` to `{right}`")
    return None


@dataclass(frozen=True)
class Fixed:
    """A text with edits made, those that were made, and those left for another round."""

    text: str
    made: tuple[Edit, ...]
    left: tuple[Edit, ...]


def apply_edits(text: str, edits: Iterable[Edit]) -> Fixed:
    """`text` with `edits` made; equal edits count once, and of two that overlap the first one wins.

    Example:
        >>> from nldsl.source import SourceFile
        >>> file = SourceFile("a.nl", "a b c")
        >>> fixed = apply_edits(file.text, [Edit(Span(file, 4, 5), "z", ""), Edit(Span(file, 0, 1), "x", "")])
        >>> fixed.text
        'x b z'
    """
    made: list[Edit] = []
    left: list[Edit] = []
    for edit in sorted(set(edits), key=lambda e: (e.span.start, e.span.end, e.text)):
        free = not made or _apart(made[-1].span, edit.span)
        (made if free else left).append(edit)
    pieces, end = [], 0
    for edit in made:
        pieces += [text[end : edit.span.start], edit.text]
        end = edit.span.end
    return Fixed("".join([*pieces, text[end:]]), tuple(made), tuple(left))


def _apart(before: Span, after: Span) -> bool:
    """Whether two spans, sorted, share nothing; two insertions at one place do not count as apart."""
    return before.end <= after.start and (before.start, before.end) != (after.start, after.end)
