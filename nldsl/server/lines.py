"""Where a client means: lines and columns in units of UTF-16, and offsets of characters."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Lines:
    """The lines of a text as the protocol counts them: from zero, columns in UTF-16 code units.

    Example:
        >>> lines = Lines("# \\N{SNAKE}\\nx = 1")
        >>> lines.position(3), lines.offset(0, 4), lines.offset(1, 0)
        ((0, 4), 3, 4)
    """

    text: str

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Offset of the first character of every line."""
        return (0, *(m.end() for m in _LINE_END.finditer(self.text)))

    @cached_property
    def _simple(self) -> bool:
        """One unit per character everywhere."""
        return self.text.isascii() or max(self.text) <= "\uffff"

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character; offsets beyond the text mean its end."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self.starts, offset) - 1
        start = self.starts[line]
        return line, offset - start if self._simple else units(self.text[start:offset])

    def offset(self, line: int, column: int) -> int:
        """The character at a line and a column; places that do not exist mean the nearest one that does.

        A column in the middle of a pair of units means the character the pair is.
        """
        if line < 0:
            return 0
        if line >= len(self.starts):
            return len(self.text)
        start = self.starts[line]
        end = self.starts[line + 1] if line + 1 < len(self.starts) else len(self.text)
        words = self.text[start:end].rstrip("\r\n")
        if self._simple:
            return start + max(0, min(column, len(words)))
        seen = 0
        for index, sign in enumerate(words):
            seen += units(sign)
            if seen > column:
                return start + index
        return start + len(words)


def units(text: str) -> int:
    """How many UTF-16 code units a text takes.

    Example:
        >>> units("ab"), units("\\N{SNAKE}")
        (2, 2)
    """
    return len(text) + sum(sign > "\uffff" for sign in text)
