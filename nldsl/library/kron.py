"""All products of two vectors, as a vector: the features of a polynomial kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    a, b = operands
    if a.kind != b.kind or a.kind not in ("vector", "headed") or a.shape[:-1] != b.shape[:-1]:
        raise ContractError(
            "`kron` expected two vectors or two values of the same heads, "
            f"found {describe(a)} and {describe(b)}"
        )
    return Outcome((*a.shape[:-1], a.shape[-1] * b.shape[-1]), a.kind)


def _reference(a: Any, b: Any) -> Any:
    """One token."""
    return np.reshape(a[..., :, None] * b[..., None, :], (*np.shape(a)[:-1], -1))


PRIMITIVE = Primitive(
    name="kron",
    doc="All products of the channels of two values: <x, y>^2 = <kron(x, x), kron(y, y)>.",
    example="block example(x) { return kron(x, x) }",
    values=("a", "b"),
    shape=_shape,
    torch="nldsl.runtime.ops:kron",
    places=frozenset({"block"}),
    equation="y[i n + j] = a_i b_j",
    reference=_reference,
)
