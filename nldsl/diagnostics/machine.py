"""A finding as JSON, for editors and other programs."""

from __future__ import annotations

from typing import Any

from nldsl.diagnostics.diagnostic import Diagnostic
from nldsl.diagnostics.fixes import fix_of
from nldsl.source import Span


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """The finding as plain dictionaries, lists, strings and numbers; lines and columns count from one.

    Example:
        >>> found = to_json(Diagnostic("NL0801", "no such file", help="check the path"))
        >>> found["code"], found["line"], found["help"]
        ('NL0801', None, 'check the path')
    """
    edit = fix_of(diagnostic)
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        **_place(diagnostic.span),
        "label": diagnostic.label,
        "notes": list(diagnostic.notes),
        "help": diagnostic.help,
        "edit": {**_place(edit.span), "text": edit.text, "title": edit.title} if edit else None,
        "secondary": [{**_place(label.span), "text": label.text} for label in diagnostic.secondary],
    }


def _place(span: Span | None) -> dict[str, Any]:
    if span is None:
        return dict.fromkeys(("file", "line", "column", "end_line", "end_column"))
    end_line, end_column = span.file.position(span.end)
    return {
        "file": span.file.name,
        "line": span.line,
        "column": span.column,
        "end_line": end_line,
        "end_column": end_column,
    }
