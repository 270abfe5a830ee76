"""The value some tokens earlier; zeros at the start.

The reference takes the whole past `[T, ...]` and gives the value at its last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import ContractError, Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    if operands[0].kind == "token":
        raise ContractError("`shift` needs numbers, found a token stream; look it up with `embed` first")
    return Outcome(operands[0].shape, operands[0].kind)


def _reference(x: Any, *, by: int) -> Any:
    """Zeros stand before the first token."""
    return x[-1 - by] if by < len(x) else np.zeros(x.shape[1:])


PRIMITIVE = Primitive(
    name="shift",
    doc="The value some tokens earlier; zeros at the start.",
    example="block example(x) { return x + shift(x) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:shift",
    options=(Option("by", 1, "how many tokens earlier", "tokens", 1, type="int"),),
    stateful=True,
    places=frozenset({"block"}),
    equation="y_t = x_{t - by}",
    reference=_reference,
)
