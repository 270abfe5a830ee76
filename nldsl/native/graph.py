"""What a traced function is before it is C: buffers, strided views, operations from views to views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple


class UnsupportedError(Exception):
    """An operation that has no form in C; its text says which."""


@dataclass(eq=False)
class Buffer:
    """Numbers of one lane; `kind`: a type of C; `place`: `room`, `input` or `output`, and which of them."""

    size: int
    kind: str
    place: str = "room"
    index: int = -1
    parts: bool = False
    """Whether several operations fill it."""


class View(NamedTuple):
    """Some numbers of a buffer, as torch lays them: element `i` at `offset + sum(i * strides)`."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    along: int = 0
    """How far it moves from place to place of a loop around it (`nests`)."""

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    def at(self) -> tuple[int, int, tuple[tuple[int, int], ...], int]:
        """Equal for views that are the same numbers in the same order of axes."""
        axes = tuple((n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1)
        return id(self.buffer), self.offset, axes, self.along


Operand = View | float
"""What an operation takes: numbers of a buffer, or one number."""


@dataclass(eq=False)
class Operation(ABC):
    """From views to a view; every subclass says how."""

    out: View

    @abstractmethod
    def reads(self) -> Iterator[View]:
        """The views whose numbers it needs."""

    @abstractmethod
    def how(self) -> tuple[object, ...]:
        """What it does with them."""

    @abstractmethod
    def look(self, at: Callable[[View], View]) -> None:
        """Let every view be what `at` makes of it."""

    def key(self) -> object:
        """Equal for operations that make the same; `None` where it fills a part of something."""
        out = self.out
        if out.offset or out.elements != out.buffer.size or out.buffer.parts:
            return None
        return type(self), out.shape, out.strides, out.buffer.kind, self.how()


@dataclass(eq=False)
class Point(Operation):
    """`out[i] = text(operands[i])`: `text` is C with `{0}`, `{1}` for the operands and `{i}`, `{j}` for the
    places along the last two axes."""

    text: str
    operands: list[Operand] = field(default_factory=list)
    dear: bool = False

    def reads(self) -> Iterator[View]:
        """The operands that are no numbers."""
        return (x for x in self.operands if isinstance(x, View))

    def how(self) -> tuple[object, ...]:
        """The text, with numbers and the places of operands."""
        return self.text, tuple(_told(x) for x in self.operands)

    def look(self, at: Callable[[View], View]) -> None:
        """See `Operation`."""
        self.out = at(self.out)
        self.operands = [at(x) if isinstance(x, View) else x for x in self.operands]


@dataclass(eq=False)
class Reduce(Operation):
    """The sum (`kind = "sum"`) or largest (`"amax"`) along `axes` of `given`; `out` keeps them, of size 1."""

    given: View
    axes: tuple[int, ...]
    kind: str

    def reads(self) -> Iterator[View]:
        """What is summed."""
        yield self.given

    def how(self) -> tuple[object, ...]:
        """The axes."""
        return _told(self.given), self.axes, self.kind

    def look(self, at: Callable[[View], View]) -> None:
        """See `Operation`."""
        self.out, self.given = at(self.out), at(self.given)


@dataclass(eq=False)
class Product(Operation):
    """`out = alpha a b + beta start`, matrix by matrix of the last two axes."""

    a: View
    b: View
    alpha: float = 1.0
    beta: float = 0.0
    start: View | None = None

    def reads(self) -> Iterator[View]:
        """Both factors, and what they are added to."""
        yield from (self.a, self.b)
        if self.start is not None:
            yield self.start

    def how(self) -> tuple[object, ...]:
        """Factors and numbers."""
        return *(_told(x) for x in self.reads()), self.alpha, self.beta

    def look(self, at: Callable[[View], View]) -> None:
        """See `Operation`."""
        self.out, self.a, self.b = at(self.out), at(self.a), at(self.b)
        self.start = None if self.start is None else at(self.start)


RUNNING = {"cumsum": ("+", 0), "cumprod": ("*", 1)}
"""Routines along the last axis: what they do with every number, and where they begin."""


@dataclass(eq=False)
class Routine(Operation):
    """A function of the kernels, called on every matrix of the last two axes, or every row."""

    name: str
    given: View

    def reads(self) -> Iterator[View]:
        """What the function is given."""
        yield self.given

    def how(self) -> tuple[object, ...]:
        """Which function."""
        return self.name, _told(self.given)

    def look(self, at: Callable[[View], View]) -> None:
        """See `Operation`."""
        self.out, self.given = at(self.out), at(self.given)


def _told(operand: Operand) -> object:
    return (operand.at(), operand.shape) if isinstance(operand, View) else (type(operand), operand)


class Program(NamedTuple):
    """`operations` in order, from `inputs` (`None`: not given) to `outputs` (`None`: no tensor)."""

    real: str
    inputs: list[View | None]
    operations: list[Operation]
    outputs: list[View | None]


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor whose last axis runs fastest.

    >>> contiguous((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def fresh(shape: tuple[int, ...], kind: str) -> View:
    """A view of a new buffer."""
    return View(Buffer(prod(shape), kind), 0, shape, contiguous(shape))
