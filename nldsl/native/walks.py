"""A function of lanes called turn by turn, each time with what it made of its last argument before.

All turns are one call of C where that is possible (see `turns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.native.lanes import Compiled, Lanes
from nldsl.native.repeats import Walk
from nldsl.native.turns import Moving, beside, handed, packed, run, shapes_of, through

Tensors = Sequence[Tensor | None]


class Turns(NamedTuple):
    """Arguments of all turns, `[N, ..]`; `backward`: the last turn comes first."""

    rows: Tensors
    length: int
    backward: bool = False

    @property
    def order(self) -> range:
        """Which turn comes when."""
        return range(self.length)[:: -1 if self.backward else 1]

    def at(self, n: int) -> list[Tensor | None]:
        """Arguments of one turn."""
        return [None if x is None else x[n] for x in self.rows]


class Wanted(NamedTuple):
    """Results of all turns that are asked for, by their numbers.

    `place`: the one that is handed on; `apart`: those in rooms of their own, `beside`: those of which a lane
    has those of one turn side by side.
    """

    place: int
    apart: Sequence[int]
    beside: Sequence[int] = ()


Found = dict[int, Tensor | None]


def walked(lanes: Lanes, turns: Turns, state: Tensor, wanted: Wanted) -> tuple[Found, Tensor]:
    """What `lanes(*turn, state)` gives, `[N, ..]` in the order of the turns' numbers, and the last state.

    Of the result handed on, what stood in front of every turn is given, not what stood behind it.

    >>> add = Lanes(lambda x, s: (x * s, x + s), 2)
    >>> x = torch.arange(1.0, 5.0).view(4, 1, 1, 1)
    >>> found, last = walked(add, Turns([x], 4), torch.zeros(1, 1, 1), Wanted(1, [0, 1]))
    >>> found[0].flatten().tolist(), found[1][:4].flatten().tolist(), last.item()
    ([0.0, 2.0, 9.0, 24.0], [0.0, 1.0, 3.0, 6.0], 10.0)
    """
    found, last, _ = walk(lanes, turns, state, wanted)
    return found, last


def walk(lanes: Lanes, turns: Turns, state: Tensor, wanted: Wanted) -> tuple[Found, Tensor, Walk | None]:
    """As `walked`, and the call of C that it was, if it was one."""
    first = turns.at(turns.order[0])
    made = _compiled(lanes, first, state) if packed([state]) else None
    if made is None:
        return *_one_by_one(lanes, turns, state, wanted), None
    places = _rooms(made, state, turns.length, wanted)
    kept = wanted.place in places
    room = places[wanted.place] if kept else beside([state.shape[2:]], state, 2)[0]
    assert room is not None
    states = handed(state, room, kept)
    arrays = [*(through(x, turns.backward) for x in turns.rows if x is not None), states.taken]
    for n, view in enumerate(made.outputs):
        rows = places.get(n)
        if n == wanted.place:
            arrays.append(states.given)
        elif rows is not None:
            arrays.append(through(rows, turns.backward))
        elif view is not None:
            arrays.append(Moving(beside([view.shape[2:]], state, 1)[0][0], 0))
    call = run(made, arrays, turns.length)
    behind = states.place(turns.length)
    last = behind.clone(memory_format=torch.contiguous_format)
    return places, last, Walk(call, [x.first for x in arrays], room[0], behind)


def _compiled(lanes: Lanes, turn: Tensors, state: Tensor) -> Compiled | None:
    found = lanes.form([*turn, state])
    if found is None and not lanes.reasons:
        drawn = state
        if not state.any():
            # A state of zeros would hide what reads it from the comparison with torch.
            generator = torch.Generator().manual_seed(0)
            numbers = torch.randn(state.shape, generator=generator, dtype=torch.float64, device="cpu")
            drawn = numbers.mul(0.1).to(state.dtype)
        lanes(*turn, drawn)
        found = lanes.form([*turn, state])
    return found


def _rooms(made: Compiled, state: Tensor, count: int, wanted: Wanted) -> Found:
    """Room for the results that are asked for; one turn more for the states."""
    found: Found = {}
    for group in (*([n] for n in wanted.apart), wanted.beside):
        views = [(n, v) for n in group if (v := made.outputs[n]) is not None]
        turns = count + (wanted.place in group)
        rooms = beside(shapes_of([v for _, v in views]), state, turns) if views else []
        found |= dict.fromkeys(group) | {n: room for (n, _), room in zip(views, rooms, strict=True)}
    return found


def _one_by_one(lanes: Lanes, turns: Turns, state: Tensor, wanted: Wanted) -> tuple[Found, Tensor]:
    rows: dict[int, Tensors] = {}
    for n in turns.order:
        made = list(lanes(*turns.at(n), state))
        new, made[wanted.place] = made[wanted.place], state
        assert new is not None
        rows[n], state = made, new
    columns = list(zip(*(rows[n] for n in range(turns.length)), strict=True))
    asked = [*wanted.apart, *wanted.beside]
    return {n: None if columns[n][0] is None else torch.stack(columns[n]) for n in asked}, state
