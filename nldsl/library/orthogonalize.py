"""Push the singular values of a matrix toward one by Newton-Schulz steps (Jordan 2024).

Five steps of the tuned quintic (reading P19); the matrix is scaled to unit Frobenius norm first, and the
smaller side is multiplied.  A zero matrix stays zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    expect(operands[0], ("matrix",), "orthogonalize", "it needs singular values")
    whole(options.get("iterations", 5), "orthogonalize", "iterations")
    return Outcome(operands[0].shape, operands[0].kind)


def _reference(x: Any, *, iterations: int) -> Any:
    """One matrix."""
    y = x / max(float(np.sqrt(np.sum(x**2))), 1e-7)
    tall = y.shape[0] > y.shape[1]
    y = y.T if tall else y
    for _ in range(iterations):
        gram = y @ y.T
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
    return y.T if tall else y


PRIMITIVE = Primitive(
    name="orthogonalize",
    doc="Push the singular values of a matrix toward one by Newton-Schulz steps (Jordan 2024).",
    example="rule example(lr) { W = W - lr * orthogonalize(g) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:orthogonalize",
    options=(Option("iterations", 5, "number of Newton-Schulz steps", "steps", 1, type="int"),),
    places=frozenset({"rule"}),
    equation="X <- 3.4445 X + (-4.7750 A + 2.0315 A^2) X with A = X X^T, X_0 = x / max(||x||_F, 1e-7)",
    reference=_reference,
)
