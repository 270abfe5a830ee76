"""Cut a vector into heads; a value that has as many heads already stays, numbers per head get a channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.broadcast import describe
from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder, ContractError, Operand, Option, Outcome, Primitive
from nldsl.catalog.values import Static
from nldsl.library._shapes import expect, whole


def _shape(operands: tuple[Operand, ...], options: Mapping[str, Static]) -> Outcome:
    x, heads = operands[0], whole(options["n"], "split", "n")
    expect(x, ("vector", "headed", "heads"), "split", "it cuts channels into heads")
    if x.kind == "headed":
        if x.shape[0] != heads:
            raise ContractError(
                f"`split` into {heads} heads found {describe(x)}, which has {x.shape[0]}; `merge` it first"
            )
        return Outcome(x.shape, "headed")
    if x.shape[0] % heads:
        raise ContractError(
            f"`split` cannot cut {x.shape[0]} channels into {heads} equal heads; "
            f"expected a multiple of {heads}"
        )
    return Outcome((heads, x.shape[0] // heads), "headed")


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    kind = b.operand(args[0]).kind
    return (grad if kind == "headed" else b("sum", grad) if kind == "heads" else b("merge", grad),)


def _reference(x: Any, *, n: int) -> Any:
    """One token."""
    return np.reshape(x, (n, -1))


PRIMITIVE = Primitive(
    name="split",
    doc="Cut a vector into heads; a value that has as many heads stays, numbers per head become a channel.",
    example="block example(x, heads = 2) { return l2norm(split(x, heads)) }",
    values=("x",),
    shape=_shape,
    torch="nldsl.runtime.ops:split",
    options=(Option("n", "REQUIRED", "number of heads", "heads", 1, type="int"),),
    vjp=_vjp,
    places=frozenset({"block"}),
    equation="y[h, i] = x[h * d / n + i]",
    reference=_reference,
)
