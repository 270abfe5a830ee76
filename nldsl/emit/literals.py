"""Source text of numbers, strings, comments and docstrings; nothing in them can end them early."""

from __future__ import annotations

import inspect
import math
import textwrap
from types import EllipsisType

from nldsl.emit.statements import printable

ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal_text(value: int | float | bool | str | EllipsisType | None) -> str:
    """The text of a literal, in the spelling ruff's formatter keeps.

    Example:
        >>> print(literal_text('say "a"'), literal_text(1e20), literal_text("\\u00e9"))
        'say "a"' 1e20 "\\xe9"
    """
    if isinstance(value, str):
        return _string_text(value)
    if value is Ellipsis:
        return "..."
    if isinstance(value, float) and math.isfinite(value):
        return repr(value).replace("e+", "e")
    return repr(value)


def _string_text(text: str) -> str:
    """Double quotes, unless that needs more escapes; all but printable ASCII escaped."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_character(c, quote) for c in text) + quote


def _character(c: str, quote: str) -> str:
    if c == quote:
        return "\\" + c
    if c in ESCAPES:
        return ESCAPES[c]
    if c.isascii() and c.isprintable():
        return c
    code = ord(c)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def docstring_lines(doc: str, width: int) -> list[str]:
    """The lines of a docstring with its quotes, wrapped to `width` columns; empty if the text is.

    Controls become spaces, quotes that could end the docstring are escaped.  The closing quotes
    stand on the last line of a single line, and on a line of their own otherwise.
    """
    text = inspect.cleandoc("\n".join(printable(line) for line in doc.expandtabs().split("\n")))
    text = "\n".join(part for line in text.split("\n") for part in _wrapped(line, width - 2 * len('"""')))
    text = text.rstrip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if not text:
        return []
    lines = [line.rstrip() for line in text.split("\n")]
    opening = '""" ' if lines[0].startswith('"') else '"""'
    if len(lines) > 1:
        return [opening + lines[0], *lines[1:], '"""']
    ends_with_quote = text.endswith('"') and not text.endswith('\\"\\"\\"')
    return [opening + lines[0] + (' """' if ends_with_quote else '"""')]


def _wrapped(line: str, width: int) -> list[str]:
    """A line of text as lines of at most `width` columns, cut between words."""
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
