"""Second factors of products whose columns lie together are turned once for all products that take them.

The kernels read rows of a second factor, so each product would turn what it is given for itself.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.native.graph import Operation, Product, Routine, View, fresh

FEWEST = 2
"""Products of one factor that are worth a buffer for it."""
LEAST = 4
"""Rows and columns of products that turn their second factor at all."""
TURN = "nl_transpose"


def turned(operations: list[Operation]) -> list[Operation]:
    """The same operations, with a routine in front of the first of several products of a turned factor."""
    counts: dict[object, int] = {}
    for o in operations:
        if isinstance(o, Product) and _turns(o):
            counts[_key(o.b)] = counts.get(_key(o.b), 0) + 1
    made: dict[object, View] = {}
    found: list[Operation] = []
    for o in operations:
        if isinstance(o, Product) and _turns(o) and counts[_key(o.b)] >= FEWEST:
            key = _key(o.b)
            if key not in made:
                made[key] = fresh(o.b.shape, o.b.buffer.kind)
                found.append(Routine(made[key], TURN, _swapped(o.b)))
            # A copy: the program that is given stays as it is.
            o = replace(o, b=made[key])
        found.append(o)
    return found


def _turns(product: Product) -> bool:
    """Whether a product has to turn all of its second factor."""
    view = product.b
    (*lead, deep, wide), (*steps, down, right) = view.shape, view.strides
    whole = all(step or n == 1 for n, step in zip(lead, steps, strict=True))
    thin = min(deep, wide, product.a.shape[-2]) < LEAST
    return down == 1 and right != 1 and whole and not thin


def _key(view: View) -> object:
    return view.at(), view.shape


def _swapped(view: View) -> View:
    """The matrix whose rows are the columns of another."""
    shape, strides = view.shape, view.strides
    return view._replace(
        shape=(*shape[:-2], shape[-1], shape[-2]), strides=(*strides[:-2], strides[-1], strides[-2])
    )
