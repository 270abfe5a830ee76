"""Outer product of two vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect

HEADS = (
    "; one matrix per head is made in `S += outer(v, k)` alone, "
    "and `S *= a`, then `S *= values(b)`, scale its channels"
)


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    left, right = operands
    for factor in (left, right):
        heads = HEADS if factor.kind == "headed" else ""
        expect(factor, ("vector",), "outer", f"each factor is one axis of the matrix{heads}")
    return Outcome((left.shape[0], right.shape[0]), "matrix")


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    left, right = args
    return b("matmul", grad, right), b("matmul", b("transpose", grad), left)


def _reference(a: Any, b: Any) -> Any:
    """One token."""
    return np.outer(a, b)


PRIMITIVE = Primitive(
    name="outer",
    doc="Outer product of two vectors.",
    example="rule example(lr) { W = W - lr * outer(W @ x, x) }",
    values=("a", "b"),
    shape=_shape,
    torch="nldsl.runtime.ops:outer",
    vjp=_vjp,
    equation="y_ij = a_i b_j",
    reference=_reference,
)
