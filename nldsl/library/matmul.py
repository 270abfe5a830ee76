"""Matrix product, written `@`: matrix by vector, vector by matrix or matrix by matrix.

The torch function depends on which it is: `torch_function` names `matvec`, `vecmat` or `matmul`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.primitive import Builder, ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    left, right = operands
    kinds = (left.kind, right.kind)
    if kinds not in (("matrix", "vector"), ("vector", "matrix"), ("matrix", "matrix")):
        hint = "use `dot` or `outer` for two vectors" if "matrix" not in kinds else "`merge` heads first"
        raise ContractError(f"`@` needs a matrix, found {describe(left)} and {describe(right)}; {hint}")
    if left.shape[-1] != right.shape[0]:
        raise ContractError(
            f"`@` found {describe(left)} and {describe(right)}: expected the last axis of the left one, "
            f"{left.shape[-1]}, to equal the first of the right one, {right.shape[0]}"
        )
    shape = left.shape[:-1] + right.shape[1:]
    return Outcome(shape, "matrix" if len(shape) == 2 else "vector")


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    left, right = args
    if b.operand(left).kind == "vector":
        return b("matmul", right, grad), b("outer", left, grad)
    back = b("matmul", b("transpose", left), grad)
    if b.operand(right).kind == "vector":
        return b("outer", grad, right), back
    return b("matmul", grad, b("transpose", right)), back


def _reference(a: Any, b: Any) -> Any:
    """One token."""
    return a @ b


PRIMITIVE = Primitive(
    name="matmul",
    doc="Matrix product, written `@`: matrix by vector, vector by matrix or matrix by matrix.",
    example="map example(z) { W = weight(dim(z), dim(z)); return W @ z }",
    values=("a", "b"),
    shape=_shape,
    torch="nldsl.runtime.ops:matmul",
    vjp=_vjp,
    equation="y_i = sum_j a_ij b_j",
    reference=_reference,
)
