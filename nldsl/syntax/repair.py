"""Which brace was forgotten or is one too many: what the indentation says.

Braces alone show only that one is missing, at the end of a definition.  The evidence collected on the
way (statements indented less than the body they would belong to, closing braces at odd places, braces
behind what is no header) names the likely culprit; the text is then read again as if it were repaired,
so that one wrong brace is one finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

from nldsl.syntax.pieces import HEADER, Piece
from nldsl.syntax.scan import Scanned


@dataclass(frozen=True)
class Repair:
    """Ignore the brace at `offset`, or put a `}` in front of `offset`; and what to say about it."""

    offset: int
    close: bool
    code: str
    message: str
    span: tuple[int, int]
    help: str
    label: str = ""

    def edit(self, text: str) -> tuple[str, tuple[int, int]]:
        """The text to put where, so that the file is what it is read as."""
        if not self.close:
            return "", (self.offset, self.offset + 1)
        line = text.rfind("\n", 0, self.offset) + 1
        return f"{_margin(text, self.span[0])}}}\n", (line, line)

    def apply(self, tokens: list[Scanned]) -> list[Scanned]:
        """The words of the text as if it had been written right."""
        found: list[Scanned] = []
        for token in tokens:
            if token.start == self.offset and self.close:
                found.append(Scanned("unbrace", token.start, token.start))
            ignored = token.start == self.offset and not self.close and token.kind in ("brace", "unbrace")
            found.append(token._replace(kind="misplaced") if ignored else token)
        return found


class Evidence:
    """What was seen of the definition being read that tells which of its braces is wrong."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.clear()

    def clear(self) -> None:
        """A definition begins."""
        self.owners: list[Piece] = []
        self.dedents: dict[int, int] = {}
        self.odd: Scanned | None = None

    def word(self, token: Scanned, owner: Piece | None) -> None:
        """A statement, or a `}`, begins while the body of `owner` is open."""
        if owner is None or owner.open in self.dedents or not self.first_on_line(token.start):
            return
        own, header = self.indent(token.start), self.indent(owner.start)
        if own < header or (own == header and token.kind != "unbrace"):
            self.dedents[owner.open] = token.start

    def closed(self, token: Scanned, owner: Piece) -> None:
        """A `}` closes the body of `owner`."""
        same_line = "\n" not in self.text[owner.start : token.start]
        first = self.first_on_line(token.start)
        fits = same_line or (first and self.indent(token.start) == self.indent(owner.start))
        if self.odd is None and token.end > token.start and not fits:
            self.odd = token

    def missing(self) -> Repair | None:
        """The repair if a `}` is missing at the end of the definition."""
        for owner in self.owners:
            where = (owner.open, owner.open + 1)
            if owner.start == owner.end:
                help = "remove it, or name what it belongs to, such as `repeat 2 {`"
                return Repair(owner.open, False, "NL0106", "`{` without a header before it", where, help)
            if not HEADER.match(self.text, owner.start):
                help = "remove `{`, or write a header such as `repeat 2` before it"
                message = "this `{` is never closed, and stands behind no header"
                return Repair(owner.open, False, "NL0105", message, where, help)
        unclosed = [o for o in self.owners if o.open in self.dedents]
        if not unclosed:
            return None
        first = min(self.dedents[o.open] for o in unclosed)
        owner = [o for o in unclosed if self.dedents[o.open] == first][-1]
        return Repair(
            first,
            True,
            "NL0105",
            "this `{` is never closed",
            (owner.open, owner.open + 1),
            "add `}` behind its last statement",
            f"opened by `{header_text(self.text, owner)}`",
        )

    def extra(self) -> Repair | None:
        """The repair if the definition was closed too early."""
        if self.odd is None:
            return None
        where = (self.odd.start, self.odd.end)
        message = "this `}` is one too many"
        help = "remove it, or open a body with `{` before it"
        return Repair(self.odd.start, False, "NL0105", message, where, help)

    # --- lines ---------------------------------------------------------------------------------

    def first_on_line(self, offset: int) -> bool:
        """Whether only white space stands before `offset` on its line."""
        return not self.text[self.text.rfind("\n", 0, offset) + 1 : offset].strip()

    def indent(self, offset: int) -> int:
        """How far the line of `offset` is indented."""
        start = self.text.rfind("\n", 0, offset) + 1
        line = self.text[start : start + 200]
        return len(line) - len(line.lstrip(" \t"))


def header_text(text: str, owner: Piece) -> str:
    """The first line of the header of a body."""
    return text[owner.start : owner.end].split("\n")[0].strip()[:80]


class _Closing(TypedDict):
    """What a report takes to carry an edit."""

    edit: str
    edit_at: tuple[int, int]


def closing(text: str, tokens: list[Scanned], owner: Piece, found: tuple[int, int] | None) -> _Closing:
    """The `}` that was forgotten, behind the last statement above `found` (or of the text)."""
    limit = found[0] if found else len(text)
    last = max(
        (t.end for t in tokens if t.kind not in ("newline", "comment") and t.end <= limit), default=limit
    )
    if "\n" not in text[owner.start : last]:
        return {"edit": " }", "edit_at": (last, last)}
    stop = text.find("\n", last)
    end = len(text) if stop < 0 else stop
    return {"edit": f"\n{_margin(text, owner.start)}}}", "edit_at": (end, end)}


def _margin(text: str, offset: int) -> str:
    """The white space that the line of `offset` begins with."""
    start = text.rfind("\n", 0, offset) + 1
    match = re.match(r"[ \t]*", text[start:])
    return match.group() if match else ""
