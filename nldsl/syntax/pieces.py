"""What tells statements apart before any grammar is asked: first words, and the pieces of a text."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLAUSE_WORDS = r"(?:minimize|over|weighted|by|retain|toward|project|at\s+commit|gradient\s+every)\b"
CONTINUES = re.compile(_CLAUSE_WORDS + r"(?!\s*(?:=(?!=)|[-+*/]=|,|<-)|\[|\s+minimizes\b)")
ITEM = re.compile(
    r"(?:block|model|map|objective|rule)[ \t]+\w+[ \t]*\(|train[ \t]+\w+[ \t]*\{|variant[ \t]+\w+[ \t]+of\b"
)
TOP = re.compile(ITEM.pattern + r"|(?:use|nldsl)\b")
STATEMENT = re.compile(
    r"return\b(?!\s*[=,)])|memory\s+\w|level\s+\w+\s+(?:every|never)\b|write\s+\w|repeat\s+\w[^\n]*\{|for\s+\w"
    r"|if\s+\w|(?:\w+\s*,\s*)*\w+\s*(?:[-+*/]?=(?!=))|\w+\[[^\n]*\]\s*<-|\w+\s+minimizes\b"
)
SURE_STATEMENT = re.compile(r"return\b(?!\s*[=,)])|memory\s+\w[\w, \t]*=|\w+\[[^\n]*\]\s*<-")
HEADER = re.compile(
    r"(?:block|model|map|objective|rule|train|variant|level|write|repeat|for|if|else|every)\b(?!\s*[-+*/]?=)"
)
WANTS_BRACE = re.compile(
    r"(?:(?:block|model|map|objective|rule)\s+\w+\s*\(.*\)|train\s+\w+|variant\s+\w+\s+of\s+\w+.*|level\s+\w+\s+(?:every\b.*|never)"
    r"|repeat\s+\S.*|for\s+\w.*\sin\s.*|(?:else\s+)?if\s+\S.*|else|write\s+\w[\w\s,]*|every\s+\S.*(?:steps?|tokens?))"
    r"(?<!\s)\s*:?",
    re.DOTALL,
)
PAIRS = {"(": ")", "[": "]"}


@dataclass(eq=False)
class Piece:
    """One statement: its own characters, and for a block statement the pieces in its braces."""

    start: int
    end: int
    tokens: int = 0
    broken: bool = False
    lost: bool = False
    """A wrong brace cut it off from its body; nothing is said about it or its inside."""
    body: list[Piece] | None = None
    open: int = -1
    close: int = -1
    tail: tuple[int, int] | None = None

    @property
    def last(self) -> int:
        """Offset behind the last character of the statement, braces and tail included."""
        if self.tail:
            return self.tail[1]
        return self.close if self.close >= 0 else self.end
