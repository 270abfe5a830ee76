"""Look a token up in a table that is a value of the block: `embed(tokens, E)` with `E = weight(...)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.primitive import Operand, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    tokens, table = operands
    expect(tokens, ("token",), "embed", "its first argument is a stream of token numbers")
    expect(table, ("matrix",), "embed", "a shared table is `E = weight(vocab, dim)`")
    return Outcome(table.shape[1:], "vector")


def _reference(tokens: Any, table: Any) -> Any:
    """One row."""
    return table[int(tokens)]


PRIMITIVE = Primitive(
    name="lookup",
    doc="Look a token up in a table that is a value of the block, written `embed(tokens, E)`.",
    example="model example(tokens, n = 9, d = 4) { E = weight(n, d); return E @ embed(tokens, E) }",
    values=("tokens", "table"),
    shape=_shape,
    torch="nldsl.runtime.ops:lookup",
    places=frozenset(),
    equation="y = table[token]",
    reference=_reference,
)
