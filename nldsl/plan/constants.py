"""Values of a block that no outer gradient goes through, whatever state the block is given."""

from __future__ import annotations

from nldsl.library import PRIMITIVES
from nldsl.spec.program import Apply, Block

WITHOUT_GRADIENT = frozenset({"detach", "constant", "lt", "le", "gt", "ge", "eq", "ne", "sign"})
"""Operations whose results have no gradient."""


def constants_of(block: Block) -> frozenset[str]:
    """Names of what `detach`, a comparison or a number gives, and of all that is made of nothing else.

    What is read of a memory is none of them, even where all that is written into it is: a state that a
    caller hands in may have a gradient.

    Example:
        >>> from nldsl.graph import open_program
        >>> text = "block f(x) { u = detach(x) + 1; y = x * u; return y }"
        >>> sorted(constants_of(open_program(text, x=2).root))
        ['c_1', 'u', 'u_detach']
    """
    found: set[str] = set()
    for statement in block.body:
        if not isinstance(statement, Apply):
            continue
        made = not statement.parameters and not PRIMITIVES[statement.op].stateful and bool(statement.args)
        if statement.op in WITHOUT_GRADIENT or (made and all(a.name in found for a in statement.args)):
            found.add(statement.out.name)
    return frozenset(found)
