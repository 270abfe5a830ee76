"""1 where the first value is equal to the second, else 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import np
from nldsl.catalog.primitive import Builder
from nldsl.catalog.values import Static
from nldsl.library._elementwise import elementwise


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return None, None


def _reference(a: Any, b: Any) -> Any:
    """0 or 1 of the float kind."""
    return np.equal(a, b).astype(float)


PRIMITIVE = elementwise(
    "eq",
    "1 where the first value is equal to the second, else 0.",
    torch="nldsl.runtime.ops:eq",
    vjp=_vjp,
    reference=_reference,
    example="block example(x, z) { return where(x == z, x, z) }",
    values=("a", "b"),
    equation="y = [a == b]",
)
