"""What a tree does not hold but a reader of the text wants back: comments, empty lines, braces."""

from __future__ import annotations

import re
from bisect import bisect_left

from nldsl.source import SourceFile
from nldsl.syntax.scan import scan

_EMPTY_LINE = re.compile(r"\n[ \t]*\n[ \t]*\Z")


class Margin:
    """The comments of a file in order, each handed out once; and where its braces stand.

    Without a file there is nothing to hand out: that is how a tree without a text is printed.
    """

    def __init__(self, file: SourceFile | None) -> None:
        self.text = file.text if file else ""
        self.comments: list[tuple[int, str]] = []
        self.opens: list[int] = []
        self.closes: dict[int, int] = {}
        self.version: tuple[int, int] | None = None
        self.next = 0
        stack: list[int] = []
        for token in scan(self.text):
            if token.kind == "comment":
                words = self.text[token.start : token.end].rstrip()
                self.comments.append((token.start, words))
            elif token.kind == "brace":
                self.opens.append(token.start)
                stack.append(token.start)
            elif token.kind == "unbrace" and stack:
                self.closes[stack.pop()] = token.start
            elif self.text[token.start : token.end] == "nldsl" and not self.opens and self.version is None:
                self.version = (token.start, self.text.find("1", token.end) + 1)

    def brace_after(self, offset: int) -> tuple[int, int]:
        """The first `{` at or behind `offset`, and its `}`."""
        index = bisect_left(self.opens, offset)
        if index == len(self.opens):
            return len(self.text), len(self.text)
        return self.opens[index], self.closes[self.opens[index]]

    def before(self, offset: int) -> list[tuple[bool, str]]:
        """Comments left that stand before `offset`; with each whether an empty line precedes it."""
        found: list[tuple[bool, str]] = []
        while self.next < len(self.comments) and self.comments[self.next][0] < offset:
            at, words = self.comments[self.next]
            found.append((self.gap(at), words))
            self.next += 1
        return found

    def behind(self, end: int) -> list[str]:
        """Comments left that stand inside of what ends at `end`, or behind it on the same line."""
        found = [words for _, words in self.before(end)]
        if self.next < len(self.comments):
            at, words = self.comments[self.next]
            if not self.text[end:at].strip(" \t;,"):
                found.append(words)
                self.next += 1
        return found

    def any_between(self, start: int, end: int) -> bool:
        """Whether a comment stands in a range."""
        return any(start <= at < end for at, _ in self.comments)

    def gap(self, offset: int) -> bool:
        """Whether an empty line stands above what begins at `offset`."""
        return bool(_EMPTY_LINE.search(self.text, max(0, offset - 400), offset))
