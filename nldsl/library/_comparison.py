"""What comparisons share: 1 or 0, the same everywhere but at the border, so that no gradient goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nldsl.catalog.numeric import numpy_function
from nldsl.catalog.primitive import Builder, Primitive
from nldsl.catalog.values import Static
from nldsl.library._elementwise import elementwise


def comparison(name: str, said: str, sign: str, *, numpy: str) -> Primitive:
    """A primitive that is 1 where the first value is what is `said` of the second, else 0.

    `sign` is how the language writes it, `numpy` the name of the function there.
    """
    function = numpy_function(numpy)

    def reference(a: Any, b: Any) -> Any:
        """0 or 1 of the float kind."""
        return function(a, b).astype(float)

    return elementwise(
        name,
        f"1 where the first value is {said} the second, else 0.",
        torch=f"nldsl.runtime.ops:{name}",
        vjp=_vjp,
        reference=reference,
        example=f"block example(x, z) {{ return where(x {sign} z, x, z) }}",
        values=("a", "b"),
        equation=f"y = [a {sign} b]",
    )


def _vjp(
    b: Builder, args: tuple[Any, ...], out: Any, grad: Any, options: Mapping[str, Static]
) -> tuple[Any | None, ...]:
    return None, None
