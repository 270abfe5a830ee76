"""Look a token up in a learned table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.primitive import Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Static
from nldsl.library._shapes import expect, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    expect(operands[0], ("token",), "embed", "its argument is a stream of token numbers")
    vocab, dim = whole(options["vocab"], "embed", "vocab"), whole(options["dim"], "embed", "dim")
    return Outcome(
        (dim,), "vector", (ParameterSpec("weight", (vocab, dim), Initialiser("normal", 1.0), "embedding"),)
    )


def _reference(tokens: Any, weight: Any) -> Any:
    """One row."""
    return weight[int(tokens)]


PRIMITIVE = Primitive(
    name="embed",
    doc="Look a token up in a learned table.",
    example="model example(tokens, vocab = 256, dim = 64) { return head(embed(tokens, vocab, dim), vocab) }",
    values=("tokens",),
    shape=_shape,
    torch="nldsl.runtime.ops:embed",
    options=(
        Option("vocab", "REQUIRED", "number of different tokens", "tokens", 1, type="int", runtime=False),
        Option("dim", "REQUIRED", "size of the vectors", "channels", 1, type="int", runtime=False),
    ),
    places=frozenset({"block"}),
    equation="y = weight[token]",
    reference=_reference,
)
