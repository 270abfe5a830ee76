"""Where the numbers of a lane lie while it is worked on: buffers whose time is over make room for others."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.native.graph import Buffer, View
from nldsl.native.nests import Nest
from nldsl.native.schedule import Stage, operations_of

BYTES = {"float": 4, "double": 8, "bool": 1, "long": 8}
LINE = 64
"""Bytes of a line of the cache."""


def laid_out(stages: list[Stage | Nest], inside: set[int]) -> tuple[dict[int, int], int]:
    """The first byte of every buffer of the room, and how large the room is."""
    spans: dict[int, list[int]] = {}
    buffers: dict[int, Buffer] = {}
    for view, first, last in _uses(stages):
        buffer = view.buffer
        if buffer.place == "room" and id(buffer) not in inside:
            buffers[id(buffer)] = buffer
            span = spans.setdefault(id(buffer), [first, last])
            span[:] = [min(span[0], first), max(span[1], last)]
    places: dict[int, int] = {}
    free: list[tuple[int, int]] = []
    top = 0
    ending: dict[int, list[int]] = {}
    for b, (_, last) in spans.items():
        ending.setdefault(last, []).append(b)
    for b, (first, _) in sorted(spans.items(), key=lambda item: item[1][0]):
        for n in sorted(k for k in ending if k < first):
            free = _merged(free, [(places[e], _size(buffers[e])) for e in ending.pop(n)])
        places[b], free, top = _taken(_size(buffers[b]), free, top)
    return places, top


def _uses(stages: list[Stage | Nest]) -> Iterator[tuple[View, int, int]]:
    """Every view, and the first and last stage that its buffer has to be there for."""
    n = 0
    for stage in stages:
        inner = stage.stages if isinstance(stage, Nest) else [stage]
        for m, one in enumerate(inner, n):
            for o in operations_of([one]):
                for view in (o.out, *o.reads()):
                    # What a round does not write anew is needed until the last one.
                    whole = isinstance(stage, Nest) and view.buffer not in stage.own
                    yield (view, n, n + len(inner) - 1) if whole else (view, m, m)
        n += len(inner)


def _size(buffer: Buffer) -> int:
    # A line more: buffers of powers of two would fall on the same places of the cache.
    return (buffer.size * BYTES[buffer.kind] + LINE - 1) // LINE * LINE + LINE


def _taken(size: int, free: list[tuple[int, int]], top: int) -> tuple[int, list[tuple[int, int]], int]:
    """The smallest gap that is large enough, or the end."""
    fits = [gap for gap in free if gap[1] >= size]
    if not fits:
        return top, free, top + size
    gap = min(fits, key=lambda g: g[1])
    rest = [g for g in free if g != gap]
    if gap[1] > size:
        rest.append((gap[0] + size, gap[1] - size))
    return gap[0], rest, top


def _merged(free: list[tuple[int, int]], more: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, size in sorted(free + more):
        if found and found[-1][0] + found[-1][1] == start:
            found[-1] = (found[-1][0], found[-1][1] + size)
        else:
            found.append((start, size))
    return found
