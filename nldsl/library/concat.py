"""Join values along the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, ContractError, Operand, Outcome, Primitive
from nldsl.catalog.values import Static


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    first = operands[0]
    for x in operands[1:]:
        if x.kind != first.kind or x.shape[:-1] != first.shape[:-1]:
            raise ContractError(
                f"`concat` expected values alike but for the last axis, "
                f"found {describe(first)} and {describe(x)}"
            )
    if first.kind not in ("vector", "headed", "matrix"):
        raise ContractError(f"`concat` joins vectors, headed values or columns, found {describe(first)}")
    return Outcome((*first.shape[:-1], sum(x.shape[-1] for x in operands)), first.kind)


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    sizes = tuple(b.operand(x).shape[-1] for x in args)
    return tuple(b("parts", grad, sizes=sizes, index=i) for i in range(len(args)))


def _reference(*values: Any) -> Any:
    """One token."""
    return np.concatenate(values, axis=-1)


PRIMITIVE = Primitive(
    name="concat",
    doc="Join values along the last axis.",
    example="block example(x, z) { return linear(concat(x, z), dim(x)) }",
    values=("values",),
    shape=_shape,
    torch="nldsl.runtime.ops:concat",
    vjp=_vjp,
    variadic=True,
    places=frozenset({"block", "map", "rule"}),
    equation="y = (a, b, ..)",
    reference=_reference,
)
