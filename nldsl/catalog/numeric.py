"""numpy for the reference values of primitives, loaded when the first of them is asked for.

Checking a specification needs contracts alone, and loading numpy takes a fifth of that time.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        def __getattr__(self, name: str) -> Any:
            return getattr(import_module("numpy"), name)

    np = _Numpy()


def numpy_function(name: str) -> Callable[..., Any]:
    """The function `name` of numpy, as a value that does not load it.

    >>> float(numpy_function("square")(3.0))
    9.0
    """

    def call(*arguments: Any) -> Any:
        return getattr(import_module("numpy"), name)(*arguments)

    return call


__all__ = ["np", "numpy_function"]
