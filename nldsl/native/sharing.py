"""What a function keeps for the one that runs on the way back, so that it need not be computed again.

Both are programs that begin with the same inputs.  What the second makes of them alone, the first has made,
too; every such buffer can be kept or be made again of others.  Kept are those of fewest bytes that spare all
products, routines and dear functions: a minimum cut between inputs and what else the way back needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx

from nldsl.native.graph import Buffer, Operation, Point, Product, Program, Routine, View, contiguous
from nldsl.native.rooms import BYTES

Print = tuple[object, ...]


class Shared(NamedTuple):
    """A buffer of the first program, and the one of the second that holds the same."""

    ahead: Buffer
    behind: Buffer


def prints(program: Program, inputs: Sequence[object], numbers: dict[object, int]) -> dict[Buffer, object]:
    """What is equal for buffers of two programs that hold the same, theirs by `numbers` that they share.

    `inputs`: what that is for every input, `None` where it is like nothing else.
    """
    found: dict[Buffer, object] = {}
    for view, known in zip(program.inputs, inputs, strict=True):
        if view is not None:
            found[view.buffer] = ("own", id(view.buffer)) if known is None else known
    for o in program.operations:
        here = (type(o).__name__, _place(o.out), *_told(o, found))
        made = (found.get(o.out.buffer), here)
        # What is made of what is made would grow without end: equal ones get a number.
        found[o.out.buffer] = ("made", numbers.setdefault(made, len(numbers)))
    return found


def _place(view: View) -> Print:
    return view.offset, view.shape, view.strides, view.buffer.kind


def _told(operation: Operation, found: dict[Buffer, object]) -> Print:
    def seen(view: View) -> Print:
        return found[view.buffer], *_place(view)

    if isinstance(operation, Point):
        given = (seen(x) if isinstance(x, View) else x for x in operation.operands)
        return operation.text, *given
    rest: Print = ()
    if isinstance(operation, Product):
        rest = (operation.alpha, operation.beta, operation.start is not None)
    elif isinstance(operation, Routine):
        rest = (operation.name,)
    else:
        rest = (getattr(operation, "axes", ()), getattr(operation, "kind", ""))
    return *(seen(v) for v in operation.reads()), *rest


def shared(ahead: Program, behind: Program, same: int, kept: Sequence[tuple[int, int]]) -> list[Shared]:
    """What the first program should keep for the second.

    Their first `same` inputs are the same; `kept`: outputs of the first that are inputs of the second.
    """
    numbers: dict[object, int] = {}
    made = prints(ahead, [("given", i) for i in range(len(ahead.inputs))], numbers)
    inputs: list[object] = [("given", i) if i < same else None for i in range(len(behind.inputs))]
    for output, place in kept:
        view = ahead.outputs[output]
        if view is not None and view.elements == view.buffer.size:
            inputs[place] = made[view.buffer]
    known = prints(behind, inputs, numbers)
    whole = {p: b for b, p in made.items() if b.place != "input"}
    there = {b: whole[p] for b, p in known.items() if p in whole and b.place != "input"}
    cut = _cut(behind, there)
    return [Shared(there[b], b) for b in cut]


def _cut(program: Program, there: dict[Buffer, Buffer]) -> list[Buffer]:
    """The buffers of fewest bytes that part what could be made again from what needs it."""
    graph: nx.DiGraph[object] = nx.DiGraph()
    graph.add_nodes_from(("from", "to"))

    def node(buffer: Buffer) -> tuple[object, object]:
        into, out = ("in", id(buffer)), ("out", id(buffer))
        if not graph.has_edge(into, out):
            free = buffer.place == "input"
            graph.add_edge(into, out, capacity=0 if free else buffer.size * BYTES[buffer.kind] + 64)
            if free:
                graph.add_edge("from", into)
        return into, out

    needed: dict[int, Buffer] = {}
    for o in program.operations:
        mine = o.out.buffer in there
        for view in o.reads():
            if view.buffer not in there and not (mine and view.buffer.place == "input"):
                continue
            needed[id(view.buffer)] = view.buffer
            graph.add_edge(node(view.buffer)[1], node(o.out.buffer)[0] if mine else "to")
        if mine:
            into = node(o.out.buffer)[0]
            needed[id(o.out.buffer)] = o.out.buffer
            if isinstance(o, (Product, Routine)) or (isinstance(o, Point) and o.dear) or o.out.buffer.parts:
                graph.add_edge("from", into)
    if not graph.in_degree("to") or not graph.out_degree("from"):
        return []
    _, (near, _) = nx.minimum_cut(graph, "from", "to")
    cut = (b for b in needed.values() if ("in", id(b)) in near and ("out", id(b)) not in near)
    return [b for b in cut if b.place != "input"]


def keeping(program: Program, buffers: Sequence[Buffer], axes: int) -> Program:
    """The program with more outputs, each in one row."""
    return program._replace(outputs=[*program.outputs, *(_row(b, axes) for b in buffers)])


def spared(program: Program, buffers: Sequence[Buffer], axes: int) -> Program:
    """The program with more inputs, each in one row, which it does not make itself any more."""
    for n, buffer in enumerate(buffers, len(program.inputs)):
        buffer.place, buffer.index = "input", n
    known = set(buffers)
    left = [o for o in program.operations if o.out.buffer not in known]
    return program._replace(inputs=[*program.inputs, *(_row(b, axes) for b in buffers)], operations=left)


def _row(buffer: Buffer, axes: int) -> View:
    shape = (*[1] * axes, buffer.size)
    return View(buffer, 0, shape, contiguous(shape))
