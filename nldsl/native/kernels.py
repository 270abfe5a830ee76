"""The texts of C that generated functions call (`native/c`)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

PARTS = ("vectors.h", "functions.h", "products.h", "triangular.h")
"""In the order in which they need one another."""


LINEARS = "linears.h"
"""What uses them for products of rows with weights."""


@cache
def kernel_text() -> str:
    """All kernels, for numbers of the type `real`.

    >>> "nl_product" in kernel_text()
    True
    """
    return "\n".join(map(_read, PARTS))


@cache
def linears_text() -> str:
    """A whole text: the products of linear layers.

    >>> "int step" in linears_text()
    True
    """
    return f"{kernel_text()}\n{_read(LINEARS)}"


def _read(name: str) -> str:
    return files("nldsl.native").joinpath("c").joinpath(name).read_text(encoding="utf-8")
