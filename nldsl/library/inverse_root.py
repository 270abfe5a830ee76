"""The inverse p-th root of a symmetric matrix, `(x + eps I)^(-1/p)`: what Shampoo multiplies a gradient with.

Eigenvalues below zero, which rounding makes, count as zero.  There is no gradient through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import square, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    square(operands[0], "inverse_root")
    whole(options["root"], "inverse_root", "root")
    return Outcome(operands[0].shape, operands[0].kind)


def _reference(x: Any, *, root: int, eps: float) -> Any:
    """By eigenvalues."""
    values, vectors = np.linalg.eigh((x + x.T) / 2)
    return (vectors * (np.maximum(values, 0.0) + eps) ** (-1.0 / root)) @ vectors.T


PRIMITIVE = Primitive(
    name="inverse_root",
    doc="The inverse p-th root of a symmetric matrix (Shampoo; Gupta et al. 2018).",
    example="rule example(lr) { W = W - lr * inverse_root(g @ transpose(g), 2) @ g }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:inverse_root",
    options=(
        Option("root", "REQUIRED", "which root", "", 1, type="int"),
        Option("eps", 1e-12, "added to every eigenvalue", minimum=0.0),
    ),
    places=frozenset({"rule"}),
    equation="y = (x + eps I)^(-1/p)",
    reference=_reference,
)
