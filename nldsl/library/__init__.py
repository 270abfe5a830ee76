"""The primitives: one file each, found by scanning this folder.

What the language itself can say (maps, objectives, rules, blocks) lives in `specs`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from nldsl.catalog.primitive import Operand, Primitive
from nldsl.catalog.registry import scan
from nldsl.catalog.values import Static

PRIMITIVES: Mapping[str, Primitive] = scan(sys.modules[__name__])
"""Every primitive by name."""


def torch_function(name: str, operands: Sequence[Operand]) -> str:
    """`module:function` of a primitive applied to operands of these kinds.

    `@` and `headwise` have several: a tensor with batch axes in front does not say whether it is a vector.

    Example:
        >>> torch_function("matmul", [Operand((3, 2), "matrix"), Operand((2,), "vector")])
        'nldsl.runtime.ops:matvec'
    """
    if name == "matmul":
        kinds = (operands[0].kind, operands[1].kind)
        if kinds == ("matrix", "vector"):
            return "nldsl.runtime.ops:matvec"
        if kinds == ("vector", "matrix"):
            return "nldsl.runtime.ops:vecmat"
    if name == "headwise" and operands[1].kind == "vector":
        return "nldsl.runtime.ops:matvec"
    return PRIMITIVES[name].torch


def is_identity(name: str, operands: Sequence[Operand], options: Mapping[str, Static]) -> bool:
    """Whether this application changes nothing: `split` of a headed value, `merge` of a vector.

    Example:
        >>> is_identity("merge", [Operand((8,), "vector")], {})
        True
    """
    if name == "split":
        return operands[0].kind == "headed" and operands[0].shape[0] == options["n"]
    return name == "merge" and operands[0].kind == "vector"


__all__ = ["PRIMITIVES", "is_identity", "torch_function"]
