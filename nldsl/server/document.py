"""One open document: its text, what is wrong with it, and what its names mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nldsl.diagnostics import Diagnostic
from nldsl.review.allow import without_allowed
from nldsl.server.checking import Checker
from nldsl.server.facts import At, Facts, facts_of
from nldsl.server.lines import Lines
from nldsl.server.occurrences import Names, names_of
from nldsl.server.sections import Sections
from nldsl.spec.consequences import without_consequences
from nldsl.spec.loader import Unit
from nldsl.spec.streams import walk
from nldsl.syntax import is_yaml, tree


@dataclass(frozen=True)
class Place:
    """A range of characters of a document, or of another file if `path` is given."""

    start: int
    end: int
    path: Path | None = None


@dataclass(frozen=True)
class Remark:
    """A finding and where it stands in the document; `labels` are the related places of it in there."""

    finding: Diagnostic
    start: int
    end: int
    labels: tuple[tuple[int, int, str], ...] = ()


class Document:
    """A text over its versions.  `update` is cheap; findings and names are worked out when asked for.

    Example:
        >>> document = Document("a.nl", "block f(x) { return y }")
        >>> [(r.finding.code, r.start, r.end) for r in document.remarks if r.finding.severity == "error"]
        [('NL0301', 20, 21)]
    """

    def __init__(self, name: str, text: str, path: Path | None = None) -> None:
        self.name = name
        self.path = path.resolve() if path is not None else None
        self.yaml = is_yaml(name)
        self._sections = Sections(name)
        self.checker = Checker(name, self.path)
        self.update(text)

    def update(self, text: str) -> None:
        """A new version of the text."""
        self.text = text
        self.lines = Lines(text)
        self._current = False
        self._remarks: list[Remark] | None = None
        self._names: Names | None = None
        self._facts: Facts | None = None
        self._assignments: dict[At, tree.Expr] | None = None

    def _check(self) -> None:
        if not self._current:
            self._sections.update(self.text)
            self.checker.update(self._sections)
            self._current = True

    @property
    def sections(self) -> Sections:
        """The text in sections, parsed."""
        self._check()
        return self._sections

    def refresh(self) -> None:
        """Look at the text anew although it is the same: files that it uses may have changed."""
        self.update(self.text)

    @property
    def remarks(self) -> list[Remark]:
        """Every finding of the text in the order of the text, each once."""
        if self._remarks is None:
            self._check()
            found = [f for s in self.sections.list for f in s.findings] + self.checker.findings
            found = without_consequences(found, self.sections.text_of)
            found = without_allowed(found, [s.file for s in self.sections.list])
            remarks = dict.fromkeys(self._remark(finding) for finding in found)
            self._remarks = sorted(remarks, key=lambda r: (r.start, r.finding.code))
        return self._remarks

    def _remark(self, finding: Diagnostic) -> Remark:
        """A finding in another file stands where this one calls it, else at the beginning."""
        place = self.sections.place(finding.span)
        if place is None:
            called = [c for note in finding.notes if (c := self.sections.called(note)) is not None]
            place = called[0] if called else (0, 0)
            if finding.span is not None:
                finding = replace(finding, notes=(*finding.notes, f"found in {finding.span}"))
        start, end = self._visible(*place)
        labels = [(self.sections.place(label.span), label.text) for label in finding.secondary]
        return Remark(
            self.sections.plain(finding), start, end, tuple((*p, text) for p, text in labels if p is not None)
        )

    def _visible(self, start: int, end: int) -> tuple[int, int]:
        """A range that can be seen: at least one character, and not beyond the first line it covers."""
        end = min(max(end, start), len(self.text))
        stop = self.text.find("\n", start, end)
        if stop > start:
            end = stop
        if start == end:
            end = min(start + 1, len(self.text))
        return start, end

    @property
    def unit(self) -> Unit:
        """The text as the elaboration sees it."""
        self._check()
        assert self.checker.unit is not None
        return self.checker.unit

    @property
    def names(self) -> Names:
        """Every name of the text and what it stands for."""
        if self._names is None:
            self._check()
            self._names = names_of(self.unit, self.sections)
        return self._names

    @property
    def facts(self) -> Facts:
        """What elaboration found out about the text."""
        if self._facts is None:
            self._check()
            self._facts = facts_of(self.checker.programs)
        return self._facts

    @property
    def assignments(self) -> dict[At, tree.Expr]:
        """By the place of an assigned name: the expression it gets."""
        if self._assignments is None:
            self._check()
            self._assignments = {
                (id(name.span.file), name.span.start): node.value
                for node in walk(self.sections.items)
                if isinstance(node, tree.Assign)
                for name in node.targets
            }
        return self._assignments
