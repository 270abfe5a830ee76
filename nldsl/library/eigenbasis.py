"""The eigenvectors of a symmetric matrix as columns, the largest eigenvalue first.

The sign of a column is such that its largest entry is positive.  There is no gradient through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import square


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    square(operands[0], "eigenbasis")
    return Outcome(operands[0].shape, operands[0].kind)


def _reference(x: Any) -> Any:
    """Of the symmetric part."""
    vectors = np.linalg.eigh((x + x.T) / 2)[1][:, ::-1]
    largest = np.take_along_axis(vectors, np.argmax(np.abs(vectors), axis=0)[None], axis=0)
    return vectors * np.where(largest < 0, -1.0, 1.0)


PRIMITIVE = Primitive(
    name="eigenbasis",
    doc="The eigenvectors of a symmetric matrix as columns, the largest eigenvalue first.",
    example="rule example(lr) { Q = eigenbasis(g @ transpose(g)); W = W - lr * Q @ sign(transpose(Q) @ g) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:eigenbasis",
    places=frozenset({"rule"}),
    equation="x = Q diag(l) Q^T, l_1 >= l_2 >= ...",
    reference=_reference,
)
