"""Give every head the same vector: one key and query for many heads of values (Shazeer 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x, heads = operands[0], whole(options["n"], "share", "n")
    expect(x, ("vector",), "share", "it repeats one vector for every head")
    return Outcome((heads, x.shape[0]), "headed")


def _reference(x: Any, *, n: int) -> Any:
    """One token."""
    return np.tile(x, (n, 1))


PRIMITIVE = Primitive(
    name="share",
    doc="Give every head the same vector; its gradients add up.",
    example="block example(x, heads = 2) { return share(linear(x, dim(x) // heads), heads) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:share",
    options=(Option("n", "REQUIRED", "number of heads", "heads", 1, type="int"),),
    places=frozenset({"block"}),
    equation="y[h, i] = x[i]",
    reference=_reference,
)
