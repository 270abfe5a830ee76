"""Number of axes of a weight, a static number: 2 for a matrix, 1 for a vector.

So that one rule can say what it does with both: `if rank(W) == 2 { ... } else { ... }`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    return Outcome((), "scalar")


def _reference(x: Any) -> Any:
    """Of one weight."""
    return np.asarray(float(np.ndim(x)))


PRIMITIVE = Primitive(
    name="rank",
    doc="Number of axes of a weight, a static number: 2 for a matrix, 1 for a vector.",
    example="rule example(lr) { if rank(W) == 2 { W -= lr * orthogonalize(g) } else { W -= lr * sign(g) } }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:rank",
    folded=True,
    places=frozenset({"rule"}),
    equation="y = number of axes of x",
    reference=_reference,
)
