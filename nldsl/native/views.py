"""Views of views: what moves no number."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.native.graph import Buffer, View, contiguous  # noqa: F401, the doctests make buffers


def axis_of(view: View, axis: int) -> int:
    """An axis counted from the front.

    >>> axis_of(View(Buffer(6, "float"), 0, (2, 3), (3, 1)), -1)
    1
    """
    return axis % len(view.shape) if view.shape else 0


def transposed(view: View, first: int, second: int) -> View:
    """Two axes in each other's place."""
    order = list(range(len(view.shape)))
    if order:
        i, j = axis_of(view, first), axis_of(view, second)
        order[i], order[j] = order[j], order[i]
    return permuted(view, order)


def permuted(view: View, order: Sequence[int]) -> View:
    """The axes in another order."""
    places = [axis_of(view, i) for i in order]
    return view._replace(
        shape=tuple(view.shape[i] for i in places), strides=tuple(view.strides[i] for i in places)
    )


def expanded(view: View, shape: Sequence[int]) -> View:
    """Axes of size 1, and new ones in front, as large as asked for (-1: as they are).

    >>> expanded(View(Buffer(2, "float"), 0, (2, 1), (1, 1)), (3, -1, 4)).strides
    (0, 1, 0)
    """
    new = len(shape) - len(view.shape)
    sizes, strides = list(shape), [0] * len(shape)
    for i, (n, s) in enumerate(zip(view.shape, view.strides, strict=True), new):
        sizes[i] = n if shape[i] == -1 else shape[i]
        strides[i] = s if n == sizes[i] else 0
    return view._replace(shape=tuple(sizes), strides=tuple(strides))


def unsqueezed(view: View, axis: int) -> View:
    """A new axis of size 1."""
    i = axis % (len(view.shape) + 1)
    return view._replace(
        shape=(*view.shape[:i], 1, *view.shape[i:]), strides=(*view.strides[:i], 0, *view.strides[i:])
    )


def squeezed(view: View, axes: Sequence[int] | None) -> View:
    """Without these axes where their size is 1; `None`: without all of size 1."""
    gone = set(range(len(view.shape))) if axes is None else {axis_of(view, a) for a in axes}
    kept = [i for i, n in enumerate(view.shape) if n != 1 or i not in gone]
    return permuted(view, kept)


def sliced(view: View, axis: int, start: int | None, stop: int | None, step: int = 1) -> View:
    """Some places of an axis.

    >>> sliced(View(Buffer(5, "float"), 0, (5,), (1,)), 0, -2, None).offset
    3
    """
    i = axis_of(view, axis)
    places = range(view.shape[i])[slice(start, stop, step)]
    first = places.start if len(places) else 0
    return view._replace(
        offset=view.offset + first * view.strides[i],
        shape=(*view.shape[:i], len(places), *view.shape[i + 1 :]),
        strides=(*view.strides[:i], view.strides[i] * step, *view.strides[i + 1 :]),
    )


def selected(view: View, axis: int, place: int) -> View:
    """One place of an axis, which is gone."""
    i = axis_of(view, axis)
    at = place % view.shape[i]
    one = sliced(view, i, at, at + 1)
    return permuted(one, [j for j in range(len(one.shape)) if j != i])


def flipped(view: View, axes: Sequence[int]) -> View:
    """Some axes backwards.

    >>> flipped(View(Buffer(5, "float"), 0, (5,), (1,)), [0])[1:4]
    (4, (5,), (-1,))
    """
    offset, strides = view.offset, list(view.strides)
    for axis in axes:
        i = axis_of(view, axis)
        offset += max(view.shape[i] - 1, 0) * strides[i]
        strides[i] = -strides[i]
    return view._replace(offset=offset, strides=tuple(strides))


def diagonal(view: View, offset: int, first: int, second: int) -> View:
    """The diagonal of two axes, behind the others."""
    i, j = axis_of(view, first), axis_of(view, second)
    start = view.offset + (offset * view.strides[j] if offset >= 0 else -offset * view.strides[i])
    down, right = view.shape[i] - max(-offset, 0), view.shape[j] - max(offset, 0)
    rest = permuted(view, [k for k in range(len(view.shape)) if k not in (i, j)])
    return View(
        view.buffer,
        start,
        (*rest.shape, max(0, min(down, right))),
        (*rest.strides, view.strides[i] + view.strides[j]),
    )


def viewed(view: View, shape: Sequence[int]) -> View | None:
    """The same numbers in another shape, or `None` where they would have to be copied.

    >>> viewed(View(Buffer(12, "float"), 0, (2, 3, 2), (6, 2, 1)), (6, -1)).strides
    (2, 1)
    >>> viewed(View(Buffer(6, "float"), 0, (3, 2), (1, 3)), (6,)) is None
    True
    """
    sizes = list(shape)
    if -1 in sizes:
        known = 1
        for n in sizes:
            known *= n if n != -1 else 1
        sizes[sizes.index(-1)] = view.elements // max(known, 1)
    if view.elements == 0:
        return view._replace(shape=tuple(sizes), strides=contiguous(tuple(sizes)))
    blocks = _blocks(view)
    strides = [0] * len(sizes)
    block = len(blocks) - 1
    left, step = blocks[block] if blocks else (1, 0)
    for i in range(len(sizes) - 1, -1, -1):
        if sizes[i] == 1:
            continue
        if left == 1 and block > 0:
            block -= 1
            left, step = blocks[block]
        if left % sizes[i]:
            return None
        strides[i], left, step = step, left // sizes[i], step * sizes[i]
    return view._replace(shape=tuple(sizes), strides=tuple(strides))


def _blocks(view: View) -> list[tuple[int, int]]:
    """Runs of axes that lie as one: their sizes and last strides."""
    blocks: list[tuple[int, int]] = []
    for n, s in zip(view.shape, view.strides, strict=True):
        if n == 1:
            continue
        if blocks and blocks[-1][1] == s * n:
            blocks[-1] = (blocks[-1][0] * n, s)
        else:
            blocks.append((n, s))
    return blocks
