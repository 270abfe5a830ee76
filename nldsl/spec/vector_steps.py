"""`h = a * h[1] + u`: a recurrence of a vector as papers print it, read as `h *= a` and `h += u`.

For memories declared with `in = 1`, on a clock of one token.  What looks at `h` in another way is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.spec.expressions import lookup
from nldsl.spec.frame import Frame
from nldsl.spec.items import MemoryBox
from nldsl.spec.printed_products import summands, summed
from nldsl.spec.streams import walk
from nldsl.syntax import tree

Part = tuple[tree.Expr, bool]
"""A summand, and whether it is taken away."""


def vector_steps(frame: Frame, node: tree.Assign, box: MemoryBox) -> tuple[tree.Assign, ...]:
    """`h *= a` and `h += u` for `h = a * h[1] + u` or `h += b * (u - h[1])`; none if it is something else."""
    token = (box.clock.every, box.clock.unit) == (1, "tokens")
    if node.op not in ("=", "+=") or not token or not of_vectors(box):
        return ()
    reader = _Reader(frame, box)
    parts = list(reader.spread(node.value, False))
    gates: list[Part] = []
    for part, negative in (p for p in parts if reader.asks(p[0])):
        gate = reader.gate(part)
        if gate is None:
            return ()
        gates.append((gate, negative))
    rest = [p for p in parts if not reader.asks(p[0])]
    # Slow parameters are named in the order of the text: what has some stays where it stands.
    behind = all(reader.asks(p) for p, _ in parts[: len(gates)])
    if not gates or (not behind and any(map(_calls, (p for p, _ in parts)))):
        return ()
    one = tree.Number(1, span=node.span)
    gates = [(one, False), *gates] if node.op == "+=" else gates
    found = (
        [] if gates == [(one, False)] else [tree.Assign(node.targets, "*=", summed(gates), span=node.span)]
    )
    return (*found, *([tree.Assign(node.targets, "+=", summed(rest), span=node.span)] if rest else []))


def of_vectors(box: MemoryBox) -> bool:
    """Whether the memory is declared to hold vectors."""
    return box.source.kind == "matrix" and dict(box.source.arguments).get("in") == 1


def _calls(node: tree.Expr) -> bool:
    return any(isinstance(n, tree.Call) for n in walk(node))


class _Reader:
    """The sums and products of one statement."""

    def __init__(self, frame: Frame, box: MemoryBox) -> None:
        self.frame, self.box = frame, box

    def asks(self, node: tree.Expr) -> bool:
        """Whether the memory stands somewhere in it."""
        names = (n for n in walk(node) if isinstance(n, tree.Name))
        return any(lookup(self.frame, n.id) is self.box for n in names)

    def spread(self, node: tree.Expr, negative: bool) -> Iterator[Part]:
        """The summands; a name times a sum that holds the memory is a sum of products."""
        for part, taken in summands(node, negative):
            if isinstance(part, tree.Unary) and part.op == "-":
                yield from self.spread(part.operand, not taken)
                continue
            factor, held = self._product(part)
            inner = [] if factor is None else list(self.spread(held, taken))
            if factor is None or len(inner) < 2:
                yield part, taken
                continue
            assert isinstance(part, tree.Binary)
            for one, minus in inner:
                pair = (factor, one) if part.op == "*" else (one, factor)
                yield tree.Binary(part.op, *pair, span=part.span), minus

    def _product(self, node: tree.Expr) -> tuple[tree.Expr | None, tree.Expr]:
        """A factor or divisor that may stand twice, if there is one, and what holds the memory."""
        if isinstance(node, tree.Binary) and node.op in ("*", "/"):
            pairs = [(node.right, node.left), *([(node.left, node.right)] if node.op == "*" else [])]
            for factor, other in pairs:
                if self.asks(other) and not self.asks(factor) and not _calls(factor):
                    return factor, other
        return None, node

    def gate(self, node: tree.Expr) -> tree.Expr | None:
        """What `h[1]` is multiplied by."""
        if isinstance(node, tree.Index) and self.asks(node.target):
            return node.key if isinstance(node.key, tree.Number) and node.key.value == 1 else None
        if not isinstance(node, tree.Binary) or node.op not in ("*", "/"):
            return None
        left = self.asks(node.left)
        held, factor = (node.left, node.right) if left else (node.right, node.left)
        inner = None if self.asks(factor) or (node.op == "/" and not left) else self.gate(held)
        if inner is None:
            return None
        if isinstance(inner, tree.Number) and inner.value == 1 and node.op == "*":
            return factor
        one, other = (inner, factor) if left else (factor, inner)
        return tree.Binary(node.op, one, other, span=node.span)
