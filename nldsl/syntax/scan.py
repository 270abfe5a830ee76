"""Words, signs and comments of a text with their offsets: all that structure needs to know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from nldsl.diagnostics import Diagnostic, DiagnosticBag, Edit, Label
from nldsl.source import SourceFile, Span
from nldsl.syntax.limits import MAX_FINDINGS

_SCANNER = re.compile(
    r"""(?P<space>[ \t\r\f]+)
      | (?P<newline>\n[ \t\r\f\n]*)
      | (?P<comment>\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<unclosed>"[^\n]*)
      | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<open>[(\[])
      | (?P<close>[)\]])
      | (?P<brace>\{)
      | (?P<unbrace>\})
      | (?P<semicolon>;)
      | (?P<sign><-|<=|>=|==|!=|\*\*|//|[-+*/]=|[-+*/@<>=,])
      | (?P<unknown>.)
    """,
    re.VERBOSE | re.ASCII,
)


class Scanned(NamedTuple):
    """One word or sign: its kind and where it stands."""

    kind: str
    start: int
    end: int


def scan(text: str) -> Iterator[Scanned]:
    """Every word, sign, comment and line end of `text`, in order; never fails.

    Example:
        >>> [t.kind for t in scan("x = 1  # one")]
        ['name', 'sign', 'number', 'comment']
    """
    for match in _SCANNER.finditer(text):
        if match.lastgroup != "space":
            yield Scanned(str(match.lastgroup), match.start(), match.end())


@dataclass(frozen=True, eq=False)
class Place:
    """A text being read, and where its characters stand in the file the user sees.

    For text files the two are the same; a scalar of a YAML file has its own `locate`.
    """

    text: str
    locate: Callable[[int, int], Span]
    bag: DiagnosticBag

    @staticmethod
    def of(file: SourceFile, bag: DiagnosticBag) -> Place:
        """The place of a text file: offsets are the file's own."""
        return Place(file.text, lambda start, end: Span(file, start, end), bag)

    @property
    def full(self) -> bool:
        """So much was reported that nothing more will be."""
        return len(self.bag.items) >= MAX_FINDINGS

    def report(
        self,
        code: str,
        message: str,
        span: tuple[int, int],
        *,
        label: str = "",
        help: str = "",
        edit: str | None = None,
        edit_at: tuple[int, int] | None = None,
        secondary: tuple[tuple[int, int, str], ...] = (),
    ) -> None:
        """Add a finding at characters `span`; `edit` is the text to put there, or at `edit_at`, instead."""
        if self.full:
            return
        where = self.locate(*span)
        self.bag.add(
            Diagnostic(
                code,
                message,
                where,
                label=label,
                help=help,
                edit=None if edit is None else Edit(self.locate(*(edit_at or span)), edit, help or message),
                secondary=tuple(Label(self.locate(a, b), text) for a, b, text in secondary),
            )
        )
