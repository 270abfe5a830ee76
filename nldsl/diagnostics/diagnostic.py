"""What a stage has to say about the text it was given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from nldsl.source import Span

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Label:
    """A remark at a place: the words under a caret."""

    span: Span
    text: str


@dataclass(frozen=True)
class Edit:
    """Replace the text of `span` by `text`; offered as a fix."""

    span: Span
    text: str
    title: str


@dataclass(frozen=True)
class Diagnostic:
    """One finding: a stable code, where it is, why it is wrong and what to do.

    `message` is lower case, names in back-quotes, what was found and what was expected.
    """

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    severity: Severity = "error"
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str = ""
    edit: Edit | None = None


class SpecError(Exception):
    """Raised once at the end of a stage that found errors; carries every diagnostic of the stage."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        first = self.diagnostics[0] if self.diagnostics else None
        where = f" ({first.span})" if first and first.span else ""
        more = f" and {len(self.diagnostics) - 1} more" if len(self.diagnostics) > 1 else ""
        super().__init__(f"{first.code}: {first.message}{where}{more}" if first else "no findings")


@dataclass
class DiagnosticBag:
    """Collects what a stage finds; `raise_if_errors` ends the stage."""

    items: list[Diagnostic] = field(default_factory=list)

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep `diagnostic` unless the very same code stands at the same place already."""
        key = (diagnostic.code, diagnostic.span, diagnostic.message)
        if all((d.code, d.span, d.message) != key for d in self.items):
            self.items.append(diagnostic)

    @property
    def errors(self) -> list[Diagnostic]:
        """The findings that stop compilation."""
        return [d for d in self.items if d.severity == "error"]

    def raise_if_errors(self) -> None:
        """Raise `SpecError` with everything found if any of it is an error."""
        if self.errors:
            raise SpecError(self.items)
