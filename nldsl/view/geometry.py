"""What a finished layout consists of: places in pixels, nothing about colours or file formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nldsl.graph import TRANSFERS, Frame, Level, Port, Problem, Zone
from nldsl.graph.compare import Status
from nldsl.graph.model import TransferKind

Pixel = tuple[float, float]


@dataclass(frozen=True)
class Rect:
    """A rectangle; `x`, `y` is the upper left corner."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        """The x of the right edge."""
        return self.x + self.w

    @property
    def bottom(self) -> float:
        """The y of the lower edge."""
        return self.y + self.h

    def overlaps(self, other: Rect) -> bool:
        """Whether the two share a point inside."""
        across = self.x < other.right and other.x < self.right
        return across and self.y < other.bottom and other.y < self.bottom

    def inside(self, other: Rect) -> bool:
        """Whether this lies within `other`."""
        across = other.x <= self.x and self.right <= other.right
        return across and other.y <= self.y and self.bottom <= other.bottom


@dataclass(frozen=True)
class Net:
    """Transfers of one kind drawn as one bus: every source reaches every target.

    `carries` maps a pair to what passes between the two.
    """

    kind: TransferKind
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    carries: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    status: Status | Literal[""] = ""
    """What a comparison says of all of these transfers."""

    @property
    def members(self) -> tuple[str, ...]:
        """Everything the bus touches, each once."""
        return tuple(dict.fromkeys((*self.sources, *self.targets)))


@dataclass(frozen=True)
class Wire:
    """One line of a bus.  `ends_at` is the problem the line comes to, if its end bears an arrow."""

    points: tuple[Pixel, ...]
    member: str = ""
    arrow: bool = False


@dataclass(frozen=True)
class End:
    """A vertical line at `x` from a net's trunk to `y`: to a box, or half-way through a row."""

    x: float
    y: float
    member: str = ""
    arrow: bool = False


@dataclass(frozen=True)
class Junction:
    """What a net has in one channel: a trunk at `y` and the lines that leave it."""

    y: float
    ends: tuple[End, ...]


@dataclass(frozen=True)
class Route:
    """A net in pixels: its lines and the dots where lines of the same net meet.

    `junctions` say the same as lines and dots, so that whoever moves boxes can draw them anew.
    """

    net: Net
    wires: tuple[Wire, ...]
    dots: tuple[Pixel, ...]
    junctions: tuple[Junction, ...] = ()


@dataclass(frozen=True)
class Box:
    """A problem or port in its place."""

    item: Problem | Port
    rect: Rect


@dataclass(frozen=True)
class Band:
    """A level as a horizontal band; `label` is the room for its text at the left."""

    level: Level
    rect: Rect
    label: Rect


@dataclass(frozen=True)
class Column:
    """A block as a range of x, with room for its name at the top."""

    zone: Zone
    rect: Rect
    header: Rect


@dataclass(frozen=True)
class FrameBox:
    """A repeat around its columns, with room for its badge."""

    frame: Frame
    rect: Rect
    badge: Rect


@dataclass(frozen=True)
class Entry:
    """A sample of the legend and its words; `sample` is a transfer (a line) or a kind of problem (a box)."""

    what: Literal["transfer", "box"]
    sample: str
    text: str
    rect: Rect


@dataclass(frozen=True)
class Layout:
    """Everything in its place."""

    name: str
    summary: str
    canvas: Rect
    bands: tuple[Band, ...]
    columns: tuple[Column, ...]
    frames: tuple[FrameBox, ...]
    boxes: tuple[Box, ...]
    routes: tuple[Route, ...]
    legend: tuple[Entry, ...]
    marks: tuple[tuple[str, Status], ...] = ()
    """What a comparison says of problems, by id."""


KINDS: tuple[TransferKind, ...] = tuple(TRANSFERS)
"""The five transfers in the order of the legend."""
