"""A finding as the user sees it: the line, a caret under the fault, and what to do."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from nldsl.diagnostics.diagnostic import Diagnostic, Label
from nldsl.source import SourceFile

_TAB = 4
_WIDEST = 160
"""Columns of a source line that are shown at most; the window moves with the caret."""
_BEFORE = 60
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STYLES = {"error": "1;31", "warning": "1;33", "note": "1;36", "gutter": "1;34", "bold": "1", "help": "1;32"}


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """The finding as text of several lines, without a final newline; ANSI colours if `color`.

    Example:
        >>> print(render(Diagnostic("NL0101", "found `+`, expected a value", help="write `x = 1`")))
        error[NL0101]: found `+`, expected a value
          = help: write `x = 1`
    """
    return _Painter(diagnostic, color).text()


def render_all(diagnostics: Iterable[Diagnostic], *, color: bool = False) -> str:
    """Every finding, with an empty line between two."""
    return "\n\n".join(render(d, color=color) for d in diagnostics)


@dataclass(frozen=True)
class _Mark:
    """A run of characters of one line with a sign under it and a few words behind."""

    line: int
    start: int
    end: int
    sign: str
    text: str
    continues: bool = False


class _Painter:
    """Writes one finding; holds the width of the gutter and whether there are colours."""

    def __init__(self, diagnostic: Diagnostic, color: bool) -> None:
        self.diagnostic = diagnostic
        self.color = color
        labels = [Label(diagnostic.span, diagnostic.label)] if diagnostic.span else []
        labels += diagnostic.secondary
        self.width = max((len(str(label.span.line)) for label in labels), default=1)

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.color and text else text

    def text(self) -> str:
        found = self.diagnostic
        head = self.paint(f"{found.severity}[{found.code}]", found.severity)
        lines = [head + self.paint(f": {_clean(found.message)}", "bold")]
        if found.span:
            lines += self._excerpts()
        remarks = [("note", note) for note in found.notes] + ([("help", found.help)] if found.help else [])
        if remarks and found.span:
            lines.append(self._gutter())
        for kind, remark in remarks:
            pad = "\n" + " " * (self.width + 4 + len(kind) + 1)
            words = _clean(remark).replace("\n", pad)
            lines.append(
                f"{' ' * self.width} {self.paint('=', 'gutter')} {self.paint(kind, 'bold')}: {words}"
            )
        return "\n".join(lines)

    def _gutter(self, number: str = "", text: str | None = None) -> str:
        bar = self.paint(f"{number:>{self.width}} |", "gutter")
        return bar if not text else f"{bar} {text}"

    def _excerpts(self) -> list[str]:
        span = self.diagnostic.span
        assert span is not None
        files: dict[SourceFile, list[_Mark]] = {span.file: [_mark(Label(span, self.diagnostic.label), "^")]}
        for label in self.diagnostic.secondary:
            files.setdefault(label.span.file, []).append(_mark(label, "-"))
        lines: list[str] = []
        for file, marks in files.items():
            first = file is span.file
            arrow = self.paint(" " * self.width + ("-->" if first else ":::"), "gutter")
            place = f"{_clean(file.name)}:{marks[0].line}:{marks[0].start + 1}"
            lines += [f"{arrow} {place}", self._gutter(), *self._lines(file, marks)]
        return lines

    def _lines(self, file: SourceFile, marks: list[_Mark]) -> list[str]:
        lines: list[str] = []
        previous = 0
        for number in sorted({mark.line for mark in marks}):
            if previous and number > previous + 1:
                between = file.line(number - 1)
                dots = self.paint("...", "gutter")
                lines.append(
                    dots if number > previous + 2 else self._gutter(str(number - 1), _window(between, 0)[0])
                )
            previous = number
            here = sorted((m for m in marks if m.line == number), key=lambda m: (m.sign != "^", m.start))
            source, shift = _window(file.line(number), here[0].start)
            lines.append(self._gutter(str(number), source))
            lines += [self._gutter("", self._under(file.line(number), mark, shift)) for mark in here]
        return lines

    def _under(self, line: str, mark: _Mark, shift: int) -> str:
        """The carets below a line, aligned with what the terminal shows."""
        start = max(0, _columns(line[: mark.start]) - shift)
        length = max(1, _columns(line[: mark.end]) - shift - start)
        length = min(length, max(1, _WIDEST - start))
        sign = mark.sign * length + ("..." if mark.continues else "")
        style = self.diagnostic.severity if mark.sign == "^" else "gutter"
        words = f" {_clean(mark.text)}" if mark.text else ""
        return " " * start + self.paint(sign + words, style)


def _mark(label: Label, sign: str) -> _Mark:
    line, column = label.span.file.position(label.span.start)
    text = label.span.file.line(line)
    start = column - 1
    length = max(1, label.span.end - label.span.start)
    continues = start + length > max(len(text.rstrip("\r")), start + 1)
    end = max(start + 1, min(start + length, len(text.rstrip("\r"))))
    return _Mark(line, start, end, sign, label.text, continues)


def _window(line: str, caret: int) -> tuple[str, int]:
    """The part of a line that is shown, tabs spelt out, and how many columns it is shifted by."""
    shown = _expand(line)
    if len(line) <= _WIDEST:
        return shown.rstrip(), 0
    shift = max(0, _columns(line[:caret]) - _BEFORE)
    cut, column = [], 0
    for sign in shown:
        if shift <= column < shift + _WIDEST:
            cut.append(sign)
        column += _columns(sign)
    return "".join(cut).rstrip(), shift


def _expand(line: str) -> str:
    """The line as the terminal shows it: tabs to the next stop, control characters visible."""
    if "\t" not in line:
        return _clean(line.rstrip("\r"))
    shown: list[str] = []
    column = 0
    for sign in line.rstrip("\r"):
        text = " " * (_TAB - column % _TAB) if sign == "\t" else _clean(sign)
        shown.append(text)
        column += _columns(text)
    return "".join(shown)


def _columns(text: str) -> int:
    """Columns a terminal needs for `text`, tabs counted from the beginning of the line.

    Example:
        >>> _columns("ab"), _columns("a\\tb"), _columns("漢字")
        (2, 5, 4)
    """
    if text.isascii() and "\t" not in text:
        return len(text)
    column = 0
    for sign in text:
        if sign == "\t":
            column += _TAB - column % _TAB
        elif not unicodedata.combining(sign):
            column += 2 if unicodedata.east_asian_width(sign) in "WF" else 1
    return column


def _clean(text: str) -> str:
    """No text of a user may steer the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
