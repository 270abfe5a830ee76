"""Edits that answer a finding: leave out a clause of a write, or an argument of a call."""

from __future__ import annotations

from nldsl.diagnostics import Edit
from nldsl.source import Span
from nldsl.syntax.scan import scan

CLAUSES = frozenset({"minimize", "over", "weighted", "by", "retain", "toward", "gradient", "at", "project"})


def drop_clause(statement: Span | None, word: str) -> Edit | None:
    """Leave out the clause that begins with `word`; `None` unless the statement has it exactly once.

    Example:
        >>> from nldsl.source import SourceFile
        >>> file = SourceFile("a.nl", "M[k] <- v  by gd(lr = 1)  retain 1  toward init")
        >>> edit = drop_clause(Span(file, 0, len(file.text)), "retain")
        >>> edit.span.text
        '  retain 1'
    """
    if statement is None:
        return None
    found = [(start, end) for w, start, end in _clauses(statement.text) if w == word]
    if len(found) != 1:
        return None
    start, end = found[0]
    text = statement.text
    while start and text[start - 1] in " \t\n":
        start -= 1
    span = Span(statement.file, statement.start + start, statement.start + end)
    return Edit(span, "", f"leave out `{span.text.strip()}`")


def _clauses(text: str) -> list[tuple[str, int, int]]:
    """Every clause of a statement outside of brackets: its word, where it begins and ends."""
    found: list[tuple[str, int, int]] = []
    depth, word, start, last = 0, "", 0, 0
    for token in scan(text):
        if token.kind in ("newline", "comment"):
            continue
        name = text[token.start : token.end]
        ends = depth == 0 and (token.kind in ("semicolon", "brace", "unbrace") or name in CLAUSES)
        if ends:
            if word:
                found.append((word, start, last))
            word, start = (name, token.start) if name in CLAUSES else ("", 0)
        depth += (token.kind == "open") - (token.kind == "close")
        last = token.end
    return [*found, (word, start, last)] if word else found


def drop_argument(argument: Span) -> Edit:
    """Leave out an argument of a call, with the comma before it, or behind it if it is the first.

    Example:
        >>> from nldsl.source import SourceFile
        >>> file = SourceFile("a.nl", "gd(lr = 1, eps = 2)")
        >>> drop_argument(Span(file, 11, 18)).span.text
        ', eps = 2'
    """
    text, start, end = argument.file.text, argument.start, argument.end
    before = len(text[:start].rstrip())
    if before and text[before - 1] == ",":
        start = before - 1
    else:
        after = len(text) - len(text[end:].lstrip())
        if text[after : after + 1] == ",":
            end = after + 1
            end += len(text[end:]) - len(text[end:].lstrip(" "))
    return Edit(Span(argument.file, start, end), "", f"leave out `{argument.text}`")
