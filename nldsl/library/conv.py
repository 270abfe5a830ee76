"""Causal depthwise convolution over time, the current token included.

The reference takes the whole past `[T, d]` and gives the value at its last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Static
from nldsl.library._shapes import merged_size, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    size = merged_size(operands[0], "conv")
    window = whole(options["window"], "conv", "window")
    parameters = [ParameterSpec("weight", (size, window), Initialiser("normal", window**-0.5), "rest")]
    if options.get("bias", True):
        parameters.append(ParameterSpec("bias", (size,), Initialiser("constant", 0.0), "rest"))
    return Outcome((size,), "vector", tuple(parameters))


def _reference(x: Any, weight: Any, bias: Any = 0.0) -> Any:
    """Zeros stand before the first token."""
    window = weight.shape[1]
    tail = np.concatenate([np.zeros((window, x.shape[1])), x])[-window:]
    return np.sum(weight * tail.T, axis=1) + bias


PRIMITIVE = Primitive(
    name="conv",
    doc="Causal depthwise convolution over time, the current token included.",
    example="block example(x) { return silu(conv(x, 4)) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:conv",
    options=(
        Option(
            "window",
            "REQUIRED",
            "how many tokens it sees, this one included",
            "tokens",
            1,
            type="int",
            runtime=False,
        ),
        Option("bias", True, "add a learned offset", type="bool", runtime=False),
    ),
    stateful=True,
    merges=True,
    places=frozenset({"block"}),
    equation="y_t[c] = bias[c] + sum_j weight[c, j] x_{t - window + 1 + j}[c]",
    reference=_reference,
)
