"""A program without what nobody asks for, its results where the caller wants them."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from nldsl.native.graph import Buffer, Operand, Operation, Point, Program, View, fresh


class Rows(NamedTuple):
    """How many results come first that lie as rows `[C, H, d]` do, and how many heads `H` these have."""

    leading: int
    heads: int


NO_ROWS = Rows(0, 1)


def tidied(program: Program, rows: Rows = NO_ROWS) -> Program:
    """Numbers in place of buffers full of one, results in outputs, and only what leads to them."""
    operations = with_numbers(program.operations)
    operations, outputs = placed_outputs(operations, program.outputs, rows)
    operations = wanted(operations)
    return program._replace(operations=operations, outputs=outputs)


def rebound(operation: Operation, moved: dict[int, View]) -> None:
    """Let views of the buffers in `moved` (by identity) look at the place they moved to."""

    def at(view: View) -> View:
        to = moved.get(id(view.buffer))
        return view if to is None else view._replace(buffer=to.buffer, offset=view.offset + to.offset)

    operation.look(at)


def with_numbers(operations: list[Operation]) -> list[Operation]:
    """Element-wise operations take the number that a whole buffer is full of."""
    writes = Counter(id(o.out.buffer) for o in operations)
    numbers: dict[int, float] = {}
    for o in operations:
        if isinstance(o, Point):
            o.operands = [_told(x, numbers) for x in o.operands]
            plain = o.text == "{0}" and not isinstance(o.operands[0], View)
            if plain and writes[id(o.out.buffer)] == 1 and o.out.elements == o.out.buffer.size:
                numbers[id(o.out.buffer)] = float(o.operands[0])  # type: ignore[arg-type]
    return operations


def _told(operand: Operand, numbers: dict[int, float]) -> Operand:
    if isinstance(operand, View):
        return numbers.get(id(operand.buffer), operand)
    return operand


def placed_outputs(
    operations: list[Operation], outputs: list[View | None], rows: Rows = NO_ROWS
) -> tuple[list[Operation], list[View | None]]:
    """Every output has a buffer of its own, contiguous and whole or `rows`: made there, or copied."""
    taken: set[int] = set()
    found: list[View | None] = []
    for index, view in enumerate(outputs):
        if view is None:
            found.append(None)
            continue
        apart = index < rows.leading and rows.heads > 1
        own = _spread(view, rows.heads) if apart else fresh(view.shape, view.buffer.kind)
        buffer = view.buffer
        straight = (
            not apart and view.offset == 0 and view.elements == buffer.size and view.at()[2] == own.at()[2]
        )
        if buffer.place == "room" and straight and id(buffer) not in taken:
            taken.add(id(buffer))
            buffer.place, buffer.index = "output", index
            found.append(view)
            continue
        own.buffer.place, own.buffer.index = "output", index
        operations.append(Point(own, "{0}", [view]))
        found.append(own)
    return operations, found


def _spread(view: View, heads: int) -> View:
    """Rows of one of so many heads, in a buffer that reaches to its last number."""
    *lead, count, width = view.shape
    step = heads * width
    buffer = Buffer((count - 1) * step + width, view.buffer.kind)
    return View(buffer, 0, view.shape, (*[0] * len(lead), step, 1))


def wanted(operations: list[Operation]) -> list[Operation]:
    """The operations whose results reach an output."""
    asked: set[int] = set()
    kept: list[Operation] = []
    for o in reversed(operations):
        if o.out.buffer.place == "output" or id(o.out.buffer) in asked:
            asked.update(id(v.buffer) for v in o.reads())
            kept.append(o)
    return kept[::-1]
