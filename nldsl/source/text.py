"""A named piece of text, and half-open spans of it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, eq=False)
class SourceFile:
    """A named text.  Two files are the same only if they are the same object.

    Example:
        >>> SourceFile("a.nl", "x\\ny").position(2)
        (2, 1)
    """

    name: str
    text: str = field(repr=False)

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """Offset of the first character of every line."""
        return (0, *(i + 1 for i, c in enumerate(self.text) if c == "\n"))

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, both counted from one, of a character offset."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of line `number` (from one), without its newline; empty if there is none."""
        if not 1 <= number <= len(self.line_starts):
            return ""
        start = self.line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : len(self.text) if end < 0 else end]


@dataclass(frozen=True)
class Span:
    """The half-open range `[start, end)` of characters of one file.

    Example:
        >>> str(Span(SourceFile("a.nl", "x = 1"), 4, 5))
        'a.nl:1:5'
    """

    file: SourceFile
    start: int
    end: int
    said: str = field(default="", compare=False, repr=False)
    """What stands here in the text form of the language, where something else is written (YAML)."""

    @property
    def line(self) -> int:
        """Line of the first character, from one."""
        return self.file.position(self.start)[0]

    @property
    def column(self) -> int:
        """Column of the first character, from one."""
        return self.file.position(self.start)[1]

    @property
    def text(self) -> str:
        """The characters the span covers."""
        return self.file.text[self.start : self.end]

    @property
    def words(self) -> str:
        """The same in the text form of the language, on one line.

        Example:
            >>> Span(SourceFile("a.nl", "x  =\\n 1"), 0, 7).words
            'x = 1'
        """
        return " ".join((self.said or self.text).split())

    def to(self, other: Span) -> Span:
        """The smallest span that covers this one and `other` (same file)."""
        return Span(self.file, min(self.start, other.start), max(self.end, other.end))

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}:{self.column}"
