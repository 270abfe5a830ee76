"""Scores of the next token; a headed value is merged first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Static
from nldsl.library._shapes import merged_size, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    size = merged_size(operands[0], "head")
    vocab = whole(options["vocab"], "head", "vocab")
    weight = ParameterSpec("weight", (vocab, size), Initialiser("normal", size**-0.5), "head")
    return Outcome((vocab,), "vector", (weight,))


def _reference(x: Any, weight: Any) -> Any:
    """One token."""
    return weight @ np.ravel(x)


PRIMITIVE = Primitive(
    name="head",
    doc="Scores of the next token; a headed value is merged first.",
    example="model example(tokens, vocab = 256, dim = 64) { return head(embed(tokens, vocab, dim), vocab) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:head",
    options=(
        Option("vocab", "REQUIRED", "number of different tokens", "tokens", 1, type="int", runtime=False),
    ),
    merges=True,
    places=frozenset({"block"}),
    equation="y = weight x",
    reference=_reference,
)
