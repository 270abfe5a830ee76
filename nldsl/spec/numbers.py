"""A number where a memory takes a vector: it stands for every channel."""

from __future__ import annotations

from nldsl.source import Span
from nldsl.spec.frame import Frame
from nldsl.spec.items import POISON, MemoryBox, Poison
from nldsl.spec.primitives import apply
from nldsl.spec.program import Value


def number_key(frame: Frame, box: MemoryBox, key: Value, span: Span) -> Value | Poison:
    """A number, or one per head, as a key: all channels of a memory of known size, else the only one.

    `h[1]` of `memory h = matrix(in = 1)` is its one column: how recurrences of vectors are written.
    Other values come back as they are, to be refused.
    """
    known = box.key_size or int(dict(box.source.arguments).get("in", 0) or 0)
    if key.kind != "scalar" and not _one_per_head(box, key, known):
        return key
    if box.source.kind == "map" and not box.key_size:
        return key
    size = known or 1
    return _spread(frame, key, size, box.heads, span)


def number_target(frame: Frame, box: MemoryBox, target: Value, span: Span) -> Value | Poison:
    """One number per head as a target: every channel of its head; a single number stays what it is."""
    known = box.value_size or int(dict(box.source.arguments).get("out", 0) or 0)
    if not _one_per_head(box, target, known):
        return target
    return _spread(frame, target, known or frame.sizes.get(box.name, 0) or 1, box.heads, span)


def _one_per_head(box: MemoryBox, value: Value, known: int) -> bool:
    """Whether a value is a number per head: `linear(x, heads)` is, where heads have more channels."""
    number = value.kind == "heads" or (value.kind == "vector" and known > 1)
    return number and value.shape == (box.heads,)


def one_column(box: MemoryBox) -> bool:
    """Whether its keys have one channel, so that a vector can only be its values."""
    return (box.key_size or dict(box.source.arguments).get("in")) == 1 and box.source.kind == "matrix"


def one_key(frame: Frame, heads: int, span: Span) -> Value | Poison:
    """The key 1 of a memory whose keys have one channel."""
    return _spread(frame, frame.constant(1, span), 1, heads, span)


def _spread(frame: Frame, number: Value, size: int, heads: int, span: Span) -> Value | Poison:
    """`number` in every one of `size` channels, for every head if there are any."""
    ones = apply(frame, "index", (), {"size": size}, span, derived=True)
    for op, literal in (("mul", 0), ("add", 1)):
        if ones is not POISON:
            ones = apply(frame, op, (ones, frame.constant(literal, span)), {}, span, derived=True)
    if ones is not POISON and heads:
        ones = apply(frame, "share", (ones,), {"n": heads}, span, derived=True)
    if ones is POISON or number == frame.constants.get((int, 1)):
        return ones
    return apply(frame, "mul", (number, ones), {}, span, derived=True)
