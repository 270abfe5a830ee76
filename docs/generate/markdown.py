"""Pieces of Markdown: tables, code, mathematics, links."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from latex2mathml.converter import convert

_CODE = re.compile(r"(`+) ?(.+?) ?\1")
_FUNCTION = re.compile(r"\\mathrm\{([A-Za-z]{2,})\}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns that are empty in every row are left out.

    Example:
        >>> print(table(("a", "b"), [("1", ""), ("2 | 3", "")]))
        | a |
        |---|
        | 1 |
        | 2 &#124; 3 |
    """
    lines = [[_cell(cell) for cell in row] for row in rows]
    used = [i for i in range(len(head)) if any(row[i] for row in lines)]
    shown = [[_cell(name) for name in head], ["---"] * len(head), *lines]
    return "\n".join(
        f"|{'|'.join(row[i] if n == 1 else f' {row[i]} ' for i in used)}|" for n, row in enumerate(shown)
    )


def _cell(text: str) -> str:
    """One line; a bar would end the cell, and inside code it cannot be escaped."""
    line = " ".join(text.split())
    line = _CODE.sub(lambda m: f"<code>{escape(m[2])}</code>" if "|" in m[2] else m[0], line)
    return line.replace("|", "&#124;")


def code(text: str) -> str:
    """Inline code; empty if there is nothing.

    Example:
        >>> code("a`b"), code("")
        ('`` a`b ``', '')
    """
    if not text:
        return ""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def fence(text: str, language: str = "", title: str = "") -> str:
    """A block of code."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    heading = f' title="{title}"' if title else ""
    return f"{ticks}{language}{heading}\n{text.rstrip()}\n{ticks}"


def math(latex: str) -> str:
    """A formula as MathML, which browsers set without a script."""
    readable = _FUNCTION.sub(r"\\operatorname{\1}", latex)
    return convert(readable, display="block").replace("\n", " ")


def formulas(lines: Iterable[tuple[str, str]]) -> str:
    """Formulas below one another; each is (text, LaTeX), and the text stands beside for copying."""
    rows = "".join(
        f'<div class="nl-formula" title="{escape(text)}">{math(latex)}</div>' for text, latex in lines
    )
    return f'<div class="nl-formulas">{rows}</div>'


def page(title: str, *parts: str, wide: bool = False, description: str = "") -> str:
    """A whole page; `wide` leaves out the table of contents beside it."""
    head = [f"description: {description!r}"] if description else []
    head += ["hide:", "  - toc"] if wide else []
    front = "---\n" + "\n".join(head) + "\n---\n\n" if head else ""
    return front + f"# {title}\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Example:
        >>> count(1, "level"), count(2, "memory", "memories")
        ('1 level', '2 memories')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
