"""Join the heads to one vector again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import merged_size


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    return Outcome((merged_size(operands[0], "merge"),), "vector")


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    x = b.operand(args[0])
    return (grad if x.kind == "vector" else b("split", grad, n=x.shape[0]),)


def _reference(x: Any) -> Any:
    """One token."""
    return np.ravel(x)


PRIMITIVE = Primitive(
    name="merge",
    doc="Join the heads to one vector again.",
    example="block example(x, heads = 2) { return merge(l2norm(split(x, heads))) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:merge",
    vjp=_vjp,
    places=frozenset({"block"}),
    equation="y[h * d + i] = x[h, i]",
    reference=_reference,
)
