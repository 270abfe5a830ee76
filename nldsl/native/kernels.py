"""The texts of C that generated functions call (`native/c`)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

PARTS = ("vectors.h", "functions.h", "products.h", "triangular.h")
"""In the order in which they need one another."""


@cache
def kernel_text() -> str:
    """All kernels, for numbers of the type `real`.

    >>> "nl_product" in kernel_text()
    True
    """
    folder = files("nldsl.native").joinpath("c")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in PARTS)
