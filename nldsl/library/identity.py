"""The identity matrix: in a rule the target of a write, in an objective what a matrix may stay close to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    size = whole(options["size"], "identity", "size")
    return Outcome((size, size), "matrix")


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return ()


def _reference(*, size: int) -> Any:
    """Ones on the diagonal."""
    return np.eye(size)


PRIMITIVE = Primitive(
    name="identity",
    doc="The identity matrix; the target of a write in a rule has the size of the other side.",
    example="rule example(lr) { memory m = matrix(like = W); m[g] <- -identity by gd(lr = lr); W = W + m }",
    values=(),
    shape=_shape,
    torch="nldsl.runtime.ops:identity",
    options=(Option("size", "REQUIRED", "rows and columns", "channels", 1, type="int"),),
    vjp=_vjp,
    places=frozenset({"objective", "rule"}),
    equation="y_ij = [i = j]",
    reference=_reference,
)
