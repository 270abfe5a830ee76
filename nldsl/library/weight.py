"""A learned vector or matrix as a value; in a map, a fast weight of the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, ContractError, Operand, Option, Outcome, ParameterSpec, Primitive
from nldsl.catalog.values import Initialiser, Role, Static
from nldsl.library._shapes import whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    given = options["sizes"]
    sizes = tuple(whole(s, "weight", "sizes") for s in (given if isinstance(given, tuple) else (given,)))
    if len(sizes) not in (1, 2):
        raise ContractError(f"`weight` takes one size (a vector) or two (a matrix), found {len(sizes)}")
    role: Role = "matrix" if len(sizes) == 2 else "rest"
    spec = ParameterSpec("weight", sizes, Initialiser("normal", sizes[-1] ** -0.5), role)
    return Outcome(sizes, "matrix" if len(sizes) == 2 else "vector", (spec,))


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return (grad,)


def _reference(weight: Any) -> Any:
    """The parameter itself."""
    return np.asarray(weight)


PRIMITIVE = Primitive(
    name="weight",
    doc="A learned vector or matrix as a value; in a map, a fast weight of the memory.",
    example="map example(z) { W = weight(dim(z), dim(z)); return W @ z }",
    values=(),
    shape=_shape,
    torch="nldsl.runtime.ops:weight",
    options=(
        Option(
            "sizes",
            "REQUIRED",
            "one size or two, outputs first",
            "channels",
            1,
            type="int",
            variadic=True,
            runtime=False,
        ),
    ),
    vjp=_vjp,
    places=frozenset({"block", "map"}),
    equation="y = weight",
    reference=_reference,
)
