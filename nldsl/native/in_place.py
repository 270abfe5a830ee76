"""Results where an operand lay that nobody reads any more: less room, and what is written is in the cache."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.native.graph import Buffer, Point, Product, View
from nldsl.native.schedule import Loop, Stage, kept_in_loops, last_reads, operations_of
from nldsl.native.tidy import rebound


def in_place(stages: list[Stage]) -> None:
    """Let products add to what they start from, and loops write over what they read last."""
    last, inside = last_reads(stages), kept_in_loops(stages)
    for n, stage in enumerate(stages):
        if isinstance(stage, Product):
            if stage.start is not None and _fits(stage.start, stage.out):
                alone = all(v.buffer is not stage.start.buffer for v in (stage.a, stage.b))
                if alone and last[id(stage.start.buffer)] == n:
                    if stage.out.buffer.place == "room":
                        _take(stages[n:], stage.out, stage.start, last)
                    else:
                        _take(stages, stage.start, stage.out, last)
        elif isinstance(stage, Loop):
            for out, old in list(_pairs(stage, n, last, inside)):
                _take(stages[n:], out, old, last)


def _fits(old: View, new: View) -> bool:
    """Whether two views are all of a buffer of the room, laid the same way."""
    rooms = old.buffer.place == "room" and new.buffer.place != "input" and old.buffer is not new.buffer
    same = old.buffer.kind == new.buffer.kind and old.at()[1:] == new.at()[1:]
    return rooms and same and old.offset == 0 and old.elements == old.buffer.size == new.buffer.size


def _pairs(loop: Loop, n: int, last: dict[int, int], inside: set[int]) -> Iterator[tuple[View, View]]:
    """Results of a loop, and operands whose place they can take."""
    readers: dict[Buffer, list[tuple[int, View]]] = {}
    written = {m.out.buffer for m in loop.members}
    for place, m in enumerate(loop.members):
        for view in m.reads():
            readers.setdefault(view.buffer, []).append((place, view))
    # A list, not a set: the same text for the same function, in every process.
    free = [b for b in readers if last[id(b)] == n and b not in written and id(b) not in inside]
    for place, m in enumerate(loop.members):
        away = m.out.buffer.place != "room" or m.out.buffer.parts
        if not isinstance(m, Point) or id(m.out.buffer) in inside or away:
            continue
        for buffer in sorted(free, key=lambda b: readers[b][0][0]):
            if all(at <= place and _fits(view, m.out) for at, view in readers[buffer]):
                free.remove(buffer)
                yield m.out, readers[buffer][0][1]
                break


def _take(stages: list[Stage], new: View, old: View, last: dict[int, int]) -> None:
    """Everything that looks at `new` looks at the buffer of `old`."""
    place = View(old.buffer, 0, old.shape, old.strides)
    for operation in operations_of(stages):
        rebound(operation, {id(new.buffer): place})
    last[id(old.buffer)] = last.pop(id(new.buffer), last[id(old.buffer)])
