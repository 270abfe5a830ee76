"""Columns made orthonormal one after the other (QR): the step of a power iteration toward eigenvectors.

The factor R has a positive diagonal, so the result does not depend on the library.  No gradient through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x = operands[0]
    expect(x, ("matrix",), "orthonormal", "only a matrix has columns")
    if x.shape[0] < x.shape[1]:
        why = "more columns than channels are never orthonormal; `transpose` makes rows columns"
        raise ContractError(
            f"`orthonormal` expected at least as many rows as columns, found {describe(x)}; {why}"
        )
    return Outcome(operands[0].shape, operands[0].kind)


def _reference(x: Any) -> Any:
    """Householder's QR with signs."""
    q, r = np.linalg.qr(x)
    return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)


PRIMITIVE = Primitive(
    name="orthonormal",
    doc="Columns made orthonormal one after the other (the Q of QR, with a positive diagonal of R).",
    example="rule example(lr) { W = W - lr * orthonormal(g @ transpose(g)) @ g }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:orthonormal",
    places=frozenset({"rule"}),
    equation="x = y R, y^T y = I, R upper triangular with a positive diagonal",
    reference=_reference,
)
