"""Line breaking: documents with groups, and the algorithm that lays them out in a given width.

The algebra is that of Wadler ("A prettier printer", 2003) with the additions ruff's formatter
needs, so that emitted code is already in its style: groups that are measured in expanded form
(`FitsExpanded`), groups that exist only when another one breaks (`ConditionalGroup`), and
parentheses that are added only if they help (`BestFit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Mode = Literal["flat", "broken"]
Measure = Literal["first line", "all lines", "overflow"]


@dataclass(frozen=True, eq=False)
class GroupId:
    """Names a group, so that other parts can ask whether it broke."""


@dataclass(frozen=True)
class Line:
    """A possible line break; in flat mode it is `flat`.  `hard` always breaks."""

    flat: str = ""
    hard: bool = False


SOFT = Line()
SPACE = Line(" ")
HARD = Line(hard=True)


@dataclass(frozen=True)
class Indent:
    """`content` with its lines indented; with `only_if`, only when that group broke."""

    content: Doc
    only_if: GroupId | None = None


@dataclass(frozen=True)
class Group:
    """On one line if it fits, else with all its own lines broken."""

    content: Doc
    id: GroupId | None = None


@dataclass(frozen=True)
class ConditionalGroup:
    """A group if the group `on` broke, otherwise just its content."""

    content: Doc
    on: GroupId


@dataclass(frozen=True)
class IfBroken:
    """`broken` if the group `on` (default: the enclosing one) broke, else `flat`."""

    broken: Doc
    flat: Doc = ""
    on: GroupId | None = None


@dataclass(frozen=True)
class FitsExpanded:
    """While the flat group `on` is measured, the content counts as broken over its lines."""

    content: Doc
    on: GroupId


@dataclass(frozen=True)
class BestFit:
    """Parenthesised on its own lines, only if that makes it fit."""

    content: Doc


@dataclass(frozen=True)
class IfRoom:
    """`content` if `columns` fit behind the indent, else `otherwise`."""

    content: Doc
    otherwise: Doc
    columns: int


Special: TypeAlias = "ConditionalGroup | IfBroken | FitsExpanded | BestFit | IfRoom"
Doc: TypeAlias = "str | Line | Indent | Group | Special | tuple[Doc, ...]"


@dataclass(frozen=True)
class Frame:
    """A document still to print: with which indent, in which mode, and how it is measured.

    `measure` says what must fit: the first line, every line, or (`overflow`) nothing in here.
    """

    doc: Doc
    indent: int
    mode: Mode
    measure: Measure = "first line"

    def to(
        self, doc: Doc, mode: Mode | None = None, *, indent: int = 0, measure: Measure | None = None
    ) -> Frame:
        """A frame for a part of this one."""
        return Frame(doc, self.indent + indent, mode or self.mode, measure or self.measure)


PARENTHESISED_INDENT = 4


def parenthesised_on_own_lines(content: Doc) -> Doc:
    """`(`, the content on indented lines of its own, `)`."""
    return ("(", Indent((HARD, content)), HARD, ")")


class Printer:
    """Lays out documents in `width` columns."""

    def __init__(self, width: int, indent: int = PARENTHESISED_INDENT) -> None:
        self.width = width
        self.step = indent
        self.modes: dict[GroupId, Mode] = {}
        self.measured = False
        self.column = 0

    def print(self, doc: Doc, indent: int = 0) -> str:
        """The text of `doc`; the first line is indented too."""
        self.measured = False
        pieces = [" " * indent]
        self.column = indent
        stack = [Frame(doc, indent, "broken")]
        while stack:
            frame = stack.pop()
            if isinstance(frame.doc, str):
                pieces.append(frame.doc)
                self.column += len(frame.doc)
            elif isinstance(frame.doc, Line):
                pieces.append(self._line(frame.doc, frame))
            else:
                self._open(frame, stack)
        return "\n".join(line.rstrip() for line in "".join(pieces).split("\n"))

    def _line(self, line: Line, frame: Frame) -> str:
        if frame.mode == "flat" and not line.hard:
            self.column += len(line.flat)
            return line.flat
        self.measured = False
        self.column = frame.indent
        return "\n" + " " * frame.indent

    def _open(self, frame: Frame, stack: list[Frame]) -> None:
        doc = frame.doc
        if isinstance(doc, Group):
            stack.append(frame.to(doc.content, self._group_mode(doc.content, frame, stack, doc.id)))
        elif isinstance(doc, ConditionalGroup):
            active = self.modes[doc.on] == "broken"
            mode = self._group_mode(doc.content, frame, stack, None) if active else frame.mode
            stack.append(frame.to(doc.content, mode))
        elif isinstance(doc, BestFit):
            stack.append(self._best_fit(doc, frame, stack))
        elif isinstance(doc, FitsExpanded):
            # All inner groups were measured as broken: each decides now for itself.
            self.measured = self.measured and self.modes[doc.on] != "flat"
            stack.append(frame.to(doc.content))
        else:
            stack.extend(self._plain(frame))

    def _plain(self, frame: Frame) -> list[Frame]:
        """The parts of a document whose layout is no decision, last first."""
        doc = frame.doc
        if isinstance(doc, tuple):
            return [frame.to(part) for part in reversed(doc)]
        if isinstance(doc, Indent):
            active = doc.only_if is None or self.modes[doc.only_if] == "broken"
            return [frame.to(doc.content, indent=self.step if active else 0)]
        if isinstance(doc, IfRoom):
            room = frame.indent + doc.columns <= self.width
            return [frame.to(doc.content if room else doc.otherwise)]
        assert isinstance(doc, IfBroken)
        mode = frame.mode if doc.on is None else self.modes[doc.on]
        return [frame.to(doc.broken if mode == "broken" else doc.flat)]

    def _group_mode(self, content: Doc, frame: Frame, rest: list[Frame], id: GroupId | None) -> Mode:
        mode: Mode = "flat"
        if frame.mode == "broken" or not self.measured:
            self.measured = True
            if id is not None:
                self.modes[id] = "flat"
            mode = "flat" if self._fits(frame.to(content, "flat"), rest) else "broken"
        if id is not None:
            self.modes[id] = mode
        return mode

    def _best_fit(self, doc: BestFit, frame: Frame, rest: list[Frame]) -> Frame:
        if self._group_mode(doc.content, frame, rest, None) == "flat":
            return frame.to(doc.content, "flat")
        wrapped = parenthesised_on_own_lines(doc.content)
        if self._fits(frame.to(wrapped, "broken", measure="all lines"), rest):
            return frame.to(wrapped, "broken")
        return frame.to(doc.content, "flat")

    def _fits(self, first: Frame, rest: list[Frame]) -> bool:
        """Whether everything up to the first line break that will surely happen fits."""
        column = self.column
        stack = [first]
        below = len(rest)
        while stack or below:
            if not stack:
                below -= 1
                stack.append(rest[below])
            frame = stack.pop()
            doc = frame.doc
            if isinstance(doc, str):
                column += len(doc)
                if column > self.width and frame.measure != "overflow":
                    return False
            elif not isinstance(doc, Line):
                stack.extend(self._measure(frame))
            elif frame.mode == "flat" and not doc.hard:
                column += len(doc.flat)
            elif frame.measure == "first line":
                return True
            else:
                column = frame.indent
        return True

    def _measure(self, frame: Frame) -> list[Frame]:
        doc = frame.doc
        if isinstance(doc, Group):
            if doc.id is not None:
                self.modes[doc.id] = frame.mode
            return [frame.to(doc.content)]
        if isinstance(doc, ConditionalGroup | BestFit):
            return [frame.to(doc.content)]
        if isinstance(doc, FitsExpanded):
            if frame.mode == "flat" and self.modes[doc.on] == "flat":
                return [frame.to(doc.content, "broken", measure="overflow")]
            return [frame.to(doc.content)]
        return self._plain(frame)
