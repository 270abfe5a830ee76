"""A walk again, on other arrays that lie alike: only where they begin is asked anew.

Views, layouts and rooms of a walk depend on shapes and strides alone, and to make them takes as long as some
hundred tokens take in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.native.store import STORE
from nldsl.native.turns import Call

MOST = 64
"""Layouts of which something is kept."""
Tensors = Sequence[Tensor | None]


class Walk(NamedTuple):
    """A walk in C: its arrays, arguments first, and the places of the state in front and behind."""

    call: Call
    arrays: Sequence[Tensor]
    front: Tensor
    behind: Tensor


class Laid(NamedTuple):
    """A view of one of the rooms."""

    room: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def of(self, rooms: Sequence[Tensor]) -> Tensor:
        """The same view of other rooms."""
        return rooms[self.room].as_strided(self.shape, self.strides, self.offset)


class Repeat:
    """A walk for sources that lie as those of another one."""

    def __init__(
        self,
        call: Call,
        rooms: Sequence[int],
        places: Sequence[tuple[int, int]],
        states: tuple[Laid, Laid],
        results: Sequence[Laid | None],
    ) -> None:
        self.call, self.rooms, self.places = call, rooms, places
        self.front, self.behind = states
        self.results = results

    def __call__(self, sources: Tensors, state: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """Results in new rooms, and the state behind the last turn."""
        rooms = [STORE.empty((size,), state.dtype) for size in self.rooms]
        self.front.of(rooms).copy_(state)
        begins = [0 if x is None else x.data_ptr() for x in (*sources, *rooms)]
        self.call([begins[owner] + further for owner, further in self.places])
        found = [None if laid is None else laid.of(rooms) for laid in self.results]
        return found, self.behind.of(rooms).clone(memory_format=torch.contiguous_format)


class Repeats:
    """What is known of the walks of one function, by how everything they take lies."""

    def __init__(self) -> None:
        self.known: dict[object, Repeat] = {}

    def note(
        self, key: object, walk: Walk, sources: Tensors, owners: Iterable[int], results: Tensors
    ) -> None:
        """Keep a walk; `owners`: of which source every argument but the state is a view, if that is there.

        A walk on copies, of what is padded say, is not kept, nor is one with results that are copies.
        """
        given = [(n, x) for n in owners if (x := sources[n]) is not None]
        arguments = list(zip(walk.arrays, given, strict=False))
        rest = walk.arrays[len(given) :]
        rooms = {_storage(x): x.untyped_storage().nbytes() // x.element_size() for x in rest}
        where, seen = list(rooms), [x for x in results if x is not None]
        if any(_storage(x) not in where for x in seen):
            return
        if any(_storage(x) != _storage(source) for x, (_, source) in arguments):
            return
        own = [(n, x.data_ptr() - source.data_ptr()) for x, (n, source) in arguments]
        made = [(len(sources) + where.index(_storage(x)), _offset(x) * x.element_size()) for x in rest]
        states = _laid(walk.front, where), _laid(walk.behind, where)
        laid = [None if x is None else _laid(x, where) for x in results]
        if len(self.known) >= MOST:
            self.known.clear()
        self.known[key] = Repeat(walk.call, list(rooms.values()), [*own, *made], states, laid)


def lies(tensors: Tensors) -> tuple[object, ...]:
    """How tensors lie, wherever they begin.

    >>> lies([torch.ones(2, 3), None]) == lies([torch.zeros(2, 3), None]) != lies([torch.ones(3, 2).mT, None])
    True
    """
    return tuple(None if x is None else (x.shape, x.stride()) for x in tensors)


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _offset(x: Tensor) -> int:
    return int(x.storage_offset())


def _laid(x: Tensor, storages: Sequence[int]) -> Laid:
    return Laid(storages.index(_storage(x)), tuple(x.shape), x.stride(), _offset(x))
