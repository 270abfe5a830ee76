"""Findings of a stage on their way out: collected, and raised once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nldsl.diagnostics.diagnostic import Diagnostic
from nldsl.diagnostics.render import render_all


class SpecError(Exception):
    """Raised once at the end of a stage that found errors; carries every diagnostic of the stage.

    As text it is what the command line shows: code, place, cause and help of each.

    Example:
        >>> print(SpecError([Diagnostic("NL0966", "`w` is complex", help="train its parts")]))
        error[NL0966]: `w` is complex
          = help: train its parts
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return render_all(self.diagnostics) or "no findings"

    def __repr__(self) -> str:
        return f"SpecError({self.summary!r})"

    @property
    def summary(self) -> str:
        """The first finding in one line, and how many more there are.

        Example:
            >>> SpecError([Diagnostic("NL0966", "`w` is complex", help="train its parts")]).summary
            'NL0966: `w` is complex'
        """
        if not self.diagnostics:
            return "no findings"
        first = self.diagnostics[0]
        where = f" ({first.span})" if first.span else ""
        more = f" and {len(self.diagnostics) - 1} more" if len(self.diagnostics) > 1 else ""
        return f"{first.code}: {first.message}{where}{more}"


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
