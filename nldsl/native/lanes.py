"""Functions of tensors compiled to C, one lane (a sample, or a head of one) at a time.

torch runs one operation after another over all lanes: what one wrote is out of the cache of a core when the
next reads it.  Here a lane goes through the whole function while its numbers are in the cache, and lanes are
what threads share.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import prod
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.native.graph import Program, UnsupportedError, View
from nldsl.native.kernels import kernel_text
from nldsl.native.print_c import AXES, printed
from nldsl.native.reading import kind_of, read
from nldsl.native.tidy import NO_ROWS, Rows
from nldsl.native.trace import Function, traced
from nldsl.runtime.c_calls import threads
from nldsl.runtime.native import Step, built, compiler, no_compiler

TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-8}
"""How far a first call may be from torch's, of the largest number of a result."""
AFTER = 4
"""How many chunks of one form torch computes before it is compiled: some come once and never again."""
TYPES = {"float": torch.float32, "double": torch.float64, "bool": torch.bool, "long": torch.int64}


MOST = 64
"""Layouts of arguments for which a call is prepared."""
Layout = tuple[object, ...]


class Compiled(NamedTuple):
    """A function of C, what it makes, and its calls by how their arguments lie."""

    step: Step
    outputs: list[View | None]
    text: str
    room: int
    calls: dict[Layout, Prepared]

    def call(self, given: Sequence[Tensor], axes: int) -> Prepared:
        """The call for such arguments."""
        key = tuple(map(_lies, given))
        found = self.calls.get(key)
        if found is None:
            remembered(self.calls, key, found := Prepared(self, given, axes))
        return found


class Lanes:
    """`function` of tensors whose `axes` leading axes are lanes, in C where that is possible.

    `function(*tensors)` takes tensors or `None` and returns a sequence of them; what a lane gives may depend
    on that lane only.  An argument whose lane axes have size 1 is shared.  It is compiled once for every
    shape, layout and type of arguments; the first call of each is computed by torch too, and if the two
    differ, or something has no form in C, torch computes that shape from then on: `reasons` says why.
    The first `rows` results `[B, H, C, d]` lie as `[B, C, H, d]` does, as parts of a sequence.

    >>> double = Lanes(lambda x, y: (x @ y + 1, None), axes=1)
    >>> y, none = double(torch.ones(3, 2, 2), torch.ones(1, 2, 2))
    >>> y.shape, y[2, 0].tolist(), none
    (torch.Size([3, 2, 2]), [3.0, 3.0], None)
    """

    def __init__(self, function: Function, axes: int = 1, *, name: str = "", rows: int = 0) -> None:
        if not 1 <= axes <= AXES:
            raise ValueError(f"1 to {AXES} lane axes, not {axes}")
        self.function, self.axes, self.rows = function, axes, rows
        self.name = name or getattr(function, "__name__", "function")
        self.reasons: dict[object, str] = {}
        self.known: dict[object, Compiled | None] = {}
        self._quick: dict[Layout, Prepared] = {}
        self._lock = Lock()

    def __call__(self, *arguments: Tensor | None) -> Sequence[Tensor | None]:
        """What the function gives, every result with all lanes."""
        exactly = tuple(None if x is None else (x.dtype, x.is_cpu, *_lies(x)) for x in arguments)
        ready = self._quick.get(exactly)
        if ready is not None:
            return ready([x for x in arguments if x is not None])
        lanes = lanes_of(arguments, self.axes)
        if not prod(lanes):
            return self.function(*arguments)
        key = self._key(arguments, lanes)
        if key not in self.known:
            with self._lock:
                if key not in self.known:
                    return self._first(key, arguments, lanes)
        found = self.known[key]
        if found is None:
            return self.function(*arguments)
        given = [x for x in arguments if x is not None]
        remembered(self._quick, exactly, made := found.call(given, self.axes))
        return made(given)

    def form(self, arguments: Sequence[Tensor | None]) -> Compiled | None:
        """What C computes for such arguments, once they have been seen."""
        return self.known.get(self._key(arguments, lanes_of(arguments, self.axes)))

    def _key(self, arguments: Sequence[Tensor | None], lanes: list[int]) -> object:
        # How far rows are apart depends on how many heads there are.
        return layout_of(arguments, self.axes), lanes[-1] if self.rows else None

    @property
    def compiled(self) -> int:
        """How many shapes run in C."""
        return sum(x is not None for x in self.known.values())

    def _first(
        self, key: object, arguments: Sequence[Tensor | None], lanes: list[int]
    ) -> Sequence[Tensor | None]:
        copies = [None if x is None else x.clone() for x in arguments]
        try:
            made = self._made(arguments, lanes[-1])
            found = called(made, arguments, self.axes)
            literal = self.function(*copies)
            _compare(found, literal)
        except UnsupportedError as reason:
            self.known[key], self.reasons[key] = None, str(reason)
            return self.function(*arguments)
        self.known[key] = made
        return literal

    def _made(self, arguments: Sequence[Tensor | None], heads: int) -> Compiled:
        program, empty = program_of(self.function, arguments, self.axes)
        rows = sum(not e for e in empty[: self.rows])
        return compiled_program(program, empty, self.axes, Rows(rows, heads))


def program_of(
    function: Function, arguments: Sequence[Tensor | None], axes: int
) -> tuple[Program, list[bool]]:
    """The program of a function at one lane of its arguments, and which of its results are `None`.

    Raises `UnsupportedError` where there is none.
    """
    if not compiler():
        raise UnsupportedError(no_compiler())
    tensors = [x for x in arguments if x is not None]
    if any(x.device.type != "cpu" for x in tensors):
        raise UnsupportedError("tensors are not on the CPU")
    real = {x.dtype for x in tensors if x.is_floating_point()}
    if len(real) != 1 or not real <= TOLERANCE.keys():
        raise UnsupportedError("the numbers are not all float32, or all float64")
    lane = [None if x is None else first_lane(x.detach(), axes) for x in arguments]
    graph = traced(function, lane)
    return read(graph, kind_of(real.pop())), graph.meta["empty"]


def compiled_program(program: Program, empty: Sequence[bool], axes: int, rows: Rows = NO_ROWS) -> Compiled:
    """A program as a function of C; `empty`: where results that are `None` stand among its outputs."""
    if any(v is not None and v.shape[:axes] != (1,) * axes for v in program.outputs):
        raise UnsupportedError("a result without lane axes")
    text = printed(program, kernel_text(), rows)
    step = built(text.text, program.real)
    if isinstance(step, str):
        raise UnsupportedError(step)
    rest = iter(text.program.outputs)
    outputs = [None if e else next(rest) for e in empty]
    return Compiled(step, [*outputs, *rest], text.text, text.room, {})


def first_lane(x: Tensor, axes: int) -> Tensor:
    """A copy of one lane that lies as the lane does."""
    one = x[(slice(0, 1),) * axes]
    wide = [slice(0, 1) if step == 0 else slice(None) for step in one.stride()]
    narrow = one[tuple(wide)]
    copy = torch.empty_strided(narrow.shape, narrow.stride(), dtype=x.dtype, device=x.device).copy_(narrow)
    return copy.expand(one.shape)


def layout_of(arguments: Sequence[Tensor | None], axes: int) -> object:
    """What the C of a call depends on: not on how many lanes there are, nor on where they lie."""
    return tuple(
        None if x is None else (x.dtype, x.device.type, tuple(x.shape[axes:]), x.stride()[axes:])
        for x in arguments
    )


def lanes_of(arguments: Sequence[Tensor | None], axes: int) -> list[int]:
    """How many lanes there are along every axis.  Raises `ValueError` where arguments disagree.

    >>> lanes_of((torch.ones(3, 2), None, torch.ones(1, 2)), 1)
    [3]
    """
    found = []
    for axis in range(axes):
        sizes = {x.shape[axis] for x in arguments if x is not None}
        more = sizes - {1}
        if len(more) > 1:
            raise ValueError(f"arguments have {sorted(more)} lanes along axis {axis}")
        found.append(more.pop() if more else 1)
    return found


def called(made: Compiled, arguments: Sequence[Tensor | None], axes: int) -> list[Tensor | None]:
    """What C gives for arguments with so many lane axes."""
    given = [x for x in arguments if x is not None]
    return made.call(given, axes)(given)


class Prepared:
    """A call of a function of C on arguments that lie as these do, wherever they begin."""

    def __init__(self, made: Compiled, given: Sequence[Tensor], axes: int) -> None:
        lanes = lanes_of(given, axes)
        rooms = [None if v is None else Room.of(v, lanes) for v in made.outputs]
        outputs = [r.empty(given[0]) for r in rooms if r is not None]
        sizes = [*[1] * (AXES - axes), *lanes]
        for x in (*given, *outputs):
            steps = [x.stride(i) * x.element_size() if x.shape[i] > 1 else 0 for i in range(axes)]
            sizes += [*[0] * (AXES - axes), *steps]
        self.step, self.rooms = made.step, rooms
        self.sizes = array("l", sizes)

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor | None]:
        """Results in rooms of their own."""
        like = given[0]
        outputs = [None if r is None else r.empty(like) for r in self.rooms]
        begins = array("Q", [x.data_ptr() for x in (*given, *outputs) if x is not None])
        sizes, places = self.sizes.buffer_info()[0], begins.buffer_info()[0]
        if self.step(len(begins), sizes, places, None, threads()):
            raise MemoryError("no room for a lane")
        return outputs


def remembered(calls: dict[Layout, Prepared], key: Layout, call: Prepared) -> None:
    """Keep a call among not too many."""
    if len(calls) >= MOST:
        calls.clear()
    calls[key] = call


def _lies(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.stride()


class Room(NamedTuple):
    """Room for a result of all lanes, as C lays it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    spread: bool
    """Whether rows of all heads lie side by side."""

    @classmethod
    def of(cls, view: View, lanes: Sequence[int]) -> Room:
        """That of a view of one lane."""
        shape, dtype = view.shape[len(lanes) :], TYPES[view.buffer.kind]
        if view.elements == view.buffer.size:
            return cls((*lanes, *shape), dtype, False)
        return cls((lanes[0], shape[0], lanes[1], *shape[1:]), dtype, True)

    def empty(self, like: Tensor) -> Tensor:
        """A new one."""
        made = like.new_empty(self.shape, dtype=self.dtype)
        return made.transpose(1, 2) if self.spread else made


def _compare(found: Sequence[Tensor | None], literal: Sequence[Tensor | None]) -> None:
    """Raise `UnsupportedError` where what C made differs from what torch made."""
    for n, (own, other) in enumerate(zip(found, literal, strict=True)):
        if (own is None) != (other is None):
            raise UnsupportedError(f"result {n} is there in one form only")
        if own is None or other is None:
            continue
        if own.shape != other.shape or own.dtype != other.dtype:
            other = other.expand_as(own) if own.dtype == other.dtype else other
        if own.dtype != other.dtype:
            raise UnsupportedError(f"result {n} is of type {own.dtype}, torch's of {other.dtype}")
        _close(n, own, other)


def _close(n: int, own: Tensor, other: Tensor) -> None:
    if not own.is_floating_point():
        if not torch.equal(own, other):
            raise UnsupportedError(f"result {n} differs from torch's")
        return
    if not torch.equal(own.isnan(), other.isnan()):
        raise UnsupportedError(f"result {n} is not a number elsewhere than torch's")
    largest = other.nan_to_num(0.0).abs().amax() if other.numel() else other.new_zeros(())
    off = (own - other).nan_to_num(0.0).abs().amax() if other.numel() else other.new_zeros(())
    if off > TOLERANCE[own.dtype] * largest + 1e-30:
        raise UnsupportedError(
            f"result {n} differs from torch's by {float(off / largest):.1e} of the largest"
        )
