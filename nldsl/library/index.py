"""The numbers 0, 1, .., n - 1 as a vector: what differs from head to head or from channel to channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    return Outcome((whole(options["size"], "index", "size"),), "vector")


def _reference(*, size: int) -> Any:
    """Counted from zero."""
    return np.arange(float(size))


PRIMITIVE = Primitive(
    name="index",
    doc="The numbers 0, 1, .., n - 1 as a vector: one per head or channel.",
    example="block example(x, heads = 2) { return split(x, heads) * (1 - 2 ** (-5 - index(heads))) }",
    values=(),
    shape=_shape,
    torch="nldsl.runtime.ops:index",
    options=(Option("size", "REQUIRED", "how many numbers", "channels", 1, type="int"),),
    places=frozenset({"block", "rule"}),
    equation="y_i = i",
    reference=_reference,
)
