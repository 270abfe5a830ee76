"""What primitives mean that the interpreter does not know by itself: names of literal functions.

A primitive added by others, or dropped into `nldsl/library`, names the function of its literal value; the
interpreter, which knows nothing else of the library, asks here.
"""

from __future__ import annotations

from nldsl.catalog.primitive import Primitive

_LITERAL: dict[str, tuple[str, bool]] = {}


def declare(primitive: Primitive) -> None:
    """Remember what a primitive names as its literal function."""
    literal = primitive.literal or (primitive.torch if primitive.elementwise else "")
    if literal:
        _LITERAL[primitive.name] = literal, primitive.elementwise


def literal(name: str) -> tuple[str, bool] | None:
    """(`module:function` of the literal value at one token, whether it acts on every element alike).

    Example:
        >>> import nldsl.library
        >>> literal("exp")
        ('torch:exp', True)
    """
    return _LITERAL.get(name)
