"""Cut the last axis into pieces: `a, b = parts(x, 8, 24)`.

Each target of the assignment is an application of its own; `index` says which piece it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.primitive import ContractError, Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import last_axis


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x, given = operands[0], options["sizes"]
    sizes = given if isinstance(given, tuple) else (given,)
    whole = last_axis(x, "parts")
    total = sum(s for s in sizes if isinstance(s, int))
    if total != whole:
        raise ContractError(
            f"`parts` must cover the last axis: found pieces of {total} in all, expected {whole}"
        )
    index = options.get("index", 0)
    if not isinstance(index, int) or not 0 <= index < len(sizes):
        raise ContractError(f"`parts` cuts {len(sizes)} pieces; there is no piece {index}")
    size = sizes[index]
    if not isinstance(size, int) or size < 1:
        raise ContractError(f"every piece of `parts` needs at least one channel, found `{size}`")
    return Outcome((*x.shape[:-1], size), x.kind)


def _reference(x: Any, *, sizes: tuple[int, ...], index: int) -> Any:
    """One token, one piece."""
    start = sum(sizes[:index])
    return x[..., start : start + sizes[index]]


PRIMITIVE = Primitive(
    name="parts",
    doc="Cut the last axis into pieces: `a, b = parts(x, 8, 24)`.",
    example="block example(x) { a, c = parts(linear(x, 2 * dim(x)), dim(x), dim(x)); return a * silu(c) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:parts",
    options=(
        Option(
            "sizes", "REQUIRED", "how many channels each piece has", "channels", 1, type="int", variadic=True
        ),
        Option("index", 0, "which piece, from zero; set by the elaborator", minimum=0, type="int"),
    ),
    places=frozenset({"block", "map", "rule"}),
    equation="y_j = x[n_1 + .. + n_{j-1} : n_1 + .. + n_j]",
    reference=_reference,
)
