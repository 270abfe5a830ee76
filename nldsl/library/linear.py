"""Linear layer; a headed value is merged first.

In a map its weight is a fast weight of the memory: the elaborator writes it as `W @ x`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Static
from nldsl.library._shapes import merged_size, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    size = merged_size(operands[0], "linear")
    out = size if options.get("out") is None else whole(options["out"], "linear", "out")
    parameters = [ParameterSpec("weight", (out, size), Initialiser("normal", size**-0.5), "matrix")]
    if options.get("bias"):
        parameters.append(ParameterSpec("bias", (out,), Initialiser("constant", 0.0), "rest"))
    return Outcome((out,), "vector", tuple(parameters))


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    x, weight, *bias = args
    back = b("matmul", b("transpose", weight), grad)
    return back, b("outer", grad, x), *([grad] if bias else [])


def _reference(x: Any, weight: Any, bias: Any = 0.0) -> Any:
    """One token; the bias is zero if there is none."""
    return weight @ np.ravel(x) + bias


PRIMITIVE = Primitive(
    name="linear",
    doc="Linear layer; a headed value is merged first.",
    example="block example(x) { return linear(x, 2 * dim(x), bias = true) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:linear",
    options=(
        Option(
            "out",
            None,
            "number of output channels; as many as the input if left out",
            "channels",
            1,
            type="int",
            runtime=False,
        ),
        Option("bias", False, "add a learned offset", type="bool", runtime=False),
    ),
    vjp=_vjp,
    merges=True,
    places=frozenset({"block", "map"}),
    equation="y = weight x + bias",
    reference=_reference,
)
