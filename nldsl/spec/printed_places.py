"""Where no step can be as papers print it: on slower clocks, of memories without a matrix, of two."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.source import Span
from nldsl.spec.expressions import lookup
from nldsl.spec.frame import Frame
from nldsl.spec.items import MemoryBox
from nldsl.spec.printed_products import diagonal, nodes
from nldsl.syntax import tree


def out_of_place(frame: Frame, node: tree.Assign, box: MemoryBox) -> bool:
    """NL0404: a step that names the matrix `S` itself, `I` or `diag(w)`, of a memory that has none.

    Whether it was reported; what else stands in the line would be told of in words that mislead.
    """
    for part in _summed(node.value):
        other = lookup(frame, part.id)
        if isinstance(other, MemoryBox) and other is not box and not box.softmax:
            return _of_two(frame, part.span, box.name, other)
    matrix = box.source.kind == "matrix"
    if box.softmax or (matrix and (box.clock.every, box.clock.unit) == (1, "tokens")):
        return False
    if not any(_printed(frame, n, box) for n in nodes(node.value)):
        return False
    name, every = box.name, box.clock.every
    clock = f"{every} {box.clock.unit.removesuffix('s') if every == 1 else box.clock.unit}"
    found = f"`{name}` is on a clock of {clock}" if matrix else f"`{name}` is no `matrix()`"
    frame.session.report(
        "NL0404",
        f"steps as papers print them are of a `matrix()` on a clock of 1 token, and {found}",
        node.value.span,
        f"names `{name}` as a matrix",
        help=f"declare it under `level ... every 1 token`, or write `{name}[k] <- v  by gd(lr = b)`",
    )
    return True


def _summed(node: tree.Expr) -> Iterator[tree.Name]:
    """Names that are added up, each times what scales it."""
    if isinstance(node, tree.Name):
        yield node
    elif isinstance(node, tree.Binary) and node.op in ("+", "-", "*", "/"):
        yield from (*_summed(node.left), *_summed(node.right))
    elif isinstance(node, tree.Unary):
        yield from _summed(node.operand)


def _of_two(frame: Frame, span: Span, name: str, box: MemoryBox) -> bool:
    other = box.name
    vector = dict(box.source.arguments).get("in") == 1
    frame.session.report(
        "NL0404",
        f"`{other}` is another memory: what it holds is not added to `{name}`",
        span,
        "a memory, no value",
        help=f"its vector is `{other}[1]`"
        if vector
        else f"a rule gathers steps: `{name}[k] <- v  by momentum(lr = b, beta = a)`; "
        f"what both answer is added: `{name}[q] + {other}[q]`",
    )
    return True


def _printed(frame: Frame, node: tree.Expr, box: MemoryBox) -> bool:
    """The memory itself (in no `S[k]`), the unit matrix by its letter, or a diagonal."""
    if isinstance(node, tree.Name):
        item = lookup(frame, node.id)
        return item is box or (node.id == "I" and item is None)
    return diagonal(node) is not None
