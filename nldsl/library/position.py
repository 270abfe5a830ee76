"""How many tokens came before this one since the reset; padding does not count.

The reference takes the number of unmasked tokens so far, this one included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    return Outcome((), "scalar")


def _reference(tokens: Any) -> Any:
    """The first token has position zero."""
    return np.asarray(tokens - 1.0)


PRIMITIVE = Primitive(
    name="position",
    doc="How many tokens came before this one since the reset; padding does not count.",
    example="block example(x) { return x * cos(0.1 * position()) }",
    values=(),
    shape=_shape,
    torch="nldsl.runtime.ops:position",
    stateful=True,
    places=frozenset({"block"}),
    equation="y_t = t - 1",
    reference=_reference,
)
