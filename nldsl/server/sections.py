"""A file in sections, one per item, each parsed once: what a keystroke does not touch is not read again.

Every section is a `SourceFile` of its own, so its spans stay true while the text above it grows or
shrinks; `Sections.place` says where they lie in the document now.  YAML files are one section.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count

from nldsl.diagnostics import Diagnostic, DiagnosticBag
from nldsl.source import SourceFile, Span
from nldsl.syntax import is_yaml, parse, tree
from nldsl.syntax.limits import MAX_BYTES

_ITEM = re.compile(
    r"^(?:(?:block|model|map|objective|rule|train|variant|nldsl)[ \t]+\w|use[ \t]*\")", re.MULTILINE
)
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_MARK = re.compile(r"<section (\d+)>(?:\.yaml)?:(\d+):(\d+)")
_COUNT = count()


@dataclass(eq=False)
class Section:
    """A part of a document; `start` is where it stands now, everything else is for good."""

    file: SourceFile
    items: tuple[tree.Item, ...]
    findings: tuple[Diagnostic, ...]
    number: int
    start: int = 0
    checked: list[Diagnostic] | None = field(default=None, repr=False)
    """What the checks of single definitions say, once they were asked."""

    @cached_property
    def words(self) -> frozenset[str]:
        """Every name that occurs, comments included: more than the section can depend on."""
        return frozenset(_WORD.findall(self.file.text))

    @cached_property
    def defines(self) -> frozenset[str]:
        """Names that mean something else if this section changes; `train` belongs to its model."""
        names = {i.target.id if isinstance(i, tree.Train) else i.name.id for i in self.named}
        return frozenset(names)

    @cached_property
    def named(self) -> tuple[tree.Definition | tree.Train | tree.Variant, ...]:
        """The items but `use`."""
        return tuple(i for i in self.items if not isinstance(i, tree.Use))

    @property
    def end(self) -> int:
        """Where the section ends now."""
        return self.start + len(self.file.text)


def cut(text: str) -> list[int]:
    """Where the sections of a text begin: at items in the first column, with the comment above them.

    Example:
        >>> cut("# one\\nblock f(x) { return x }\\n# two\\nblock g(x) { return x }\\n")
        [0, 30]
    """
    starts = [0]
    for match in _ITEM.finditer(text):
        start = match.start()
        while start:
            above = text.rfind("\n", 0, start - 1) + 1
            if not text.startswith("#", above):
                break
            start = above
        if start > starts[-1]:
            starts.append(start)
    return starts


class Sections:
    """The sections of one document over its versions."""

    def __init__(self, name: str) -> None:
        self.yaml = is_yaml(name)
        self.list: list[Section] = []
        self._by_file: dict[int, Section] = {}

    def update(self, text: str) -> None:
        """Cut `text`; sections whose text is known keep what was found out about them."""
        known: dict[str, list[Section]] = defaultdict(list)
        for section in reversed(self.list):
            known[section.file.text].append(section)
        whole = self.yaml or len(text) > MAX_BYTES or "\0" in text
        starts = [0] if whole else cut(text)
        self.list = []
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            words = text[start:end]
            section = known[words].pop() if known[words] else self._read(words)
            section.start = start
            self.list.append(section)
        self._by_file = {id(s.file): s for s in self.list}

    def _read(self, text: str) -> Section:
        number = next(_COUNT)
        file = SourceFile(f"<section {number}>{'.yaml' if self.yaml else ''}", text)
        bag = DiagnosticBag()
        return Section(file, parse(file, bag).items, tuple(bag.items), number)

    @property
    def items(self) -> tuple[tree.Item, ...]:
        """The items of the document in order."""
        return tuple(item for section in self.list for item in section.items)

    def at(self, offset: int) -> Section:
        """The section that holds a character of the document."""
        return next((s for s in reversed(self.list) if s.start <= offset), self.list[0])

    def place(self, span: Span | None) -> tuple[int, int] | None:
        """The characters of the document that a span means now; `None` if it lies in another file."""
        section = self._by_file.get(id(span.file)) if span is not None else None
        if section is None or span is None:
            return None
        return section.start + span.start, section.start + span.end

    def text_of(self, file: SourceFile) -> object:
        """What files that are parts of the document have in common; of another file itself."""
        return id(self) if id(file) in self._by_file else id(file)

    def called(self, text: str) -> tuple[int, int] | None:
        """The place in the document that a note such as `elaborated for <section 3>:1:5` names."""
        for number, line, column in _MARK.findall(text):
            section = next((s for s in self.list if s.number == int(number)), None)
            if section is not None:
                offset = section.start + section.file.line_starts[int(line) - 1] + int(column) - 1
                return offset, offset
        return None

    def without_marks(self, notes: Sequence[str]) -> tuple[str, ...]:
        """Notes that do not speak of sections; those that do say which definition was on the way."""
        return tuple(note for note in notes if not _MARK.search(note))

    def plain(self, finding: Diagnostic) -> Diagnostic:
        """A finding without notes that speak of sections."""
        kept = self.without_marks(finding.notes)
        return finding if len(kept) == len(finding.notes) else replace(finding, notes=kept)
