"""The second value where the condition is not 0, else the third."""

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
    condition = args[0]
    return None, b("where", condition, grad, b(0.0)), b("where", condition, b(0.0), grad)


def _reference(condition: Any, a: Any, b: Any) -> Any:
    """The condition is a value, not a boolean."""
    return np.where(np.asarray(condition) != 0, a, b)


PRIMITIVE = elementwise(
    "where",
    "The second value where the condition is not 0, else the third.",
    torch="nldsl.runtime.ops:where",
    vjp=_vjp,
    reference=_reference,
    example="block example(x) { return where(x > 0, x, 0.1 * x) }",
    values=("condition", "a", "b"),
    equation="y = a if c != 0 else b",
)
