"""Add a learned vector for the position of the token (Gehring et al. 2017, GPT-2).

Keeps its own count of tokens, as `position` does.  The reference takes the position explicitly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.primitive import Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Static
from nldsl.library._shapes import expect, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x, places = operands[0], whole(options["n"], "add_position", "n")
    expect(x, ("vector",), "add_position", "it adds one learned vector per position")
    table = ParameterSpec("weight", (places, x.shape[0]), Initialiser("normal", 0.02), "rest")
    return Outcome(x.shape, x.kind, (table,))


def _reference(x: Any, weight: Any, *, n: int, position: int) -> Any:
    """One token at `position`."""
    return x + weight[min(position, n - 1)]


PRIMITIVE = Primitive(
    name="add_position",
    doc="Add a learned vector for the position of the token; from position n on it is the last one.",
    example="block example(x) { return add_position(x, 16) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:add_position",
    options=(
        Option("n", "REQUIRED", "number of different positions", "tokens", 1, type="int", runtime=False),
    ),
    stateful=True,
    places=frozenset({"block"}),
    equation="y_t = x_t + weight[min(t - 1, n - 1)]",
    reference=_reference,
)
