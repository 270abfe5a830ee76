"""Key and target of a write as they are told: as written, or as they are computed where nobody named them."""

from __future__ import annotations

from collections.abc import Mapping

from nldsl.calculus.letters import meaning, unnamed
from nldsl.graph.problems import written_pair
from nldsl.spec.program import Apply, Block, Term

Called = tuple[Mapping[str, str], Mapping[str, str]]
"""How values are written where not by name, and what those without a name are computed from."""


def meanings(block: Block) -> dict[str, str]:
    """What values without a name of the author's are computed from, where that is short.

    Example:
        >>> from nldsl.graph import open_program
        >>> level = "level c every 1 token { memory h = matrix(in = 1) }"
        >>> text = f"block f(x) {{ {level}; h += 2 * x; return h[1] }}"
        >>> meanings(open_program(text, x=4).root)["h_mul"]
        '2 * x'
    """
    made = (s.out.name for s in block.body if isinstance(s, Apply) and unnamed(s))
    return {name: text for name in made if (text := meaning(block, name))}


def told_pair(term: Term, meant: Mapping[str, str]) -> tuple[str, str]:
    """Key and target of a term; `1` for the only channel of a memory that remembers a vector."""
    key, target = (meant.get(text, text) for text in written_pair(term))
    return key, target


def is_one(term: Term, key: str) -> bool:
    """Whether a key is the number 1 in its one channel: then there is no outer product."""
    return key == "1" and term.key.shape[-1:] == (1,)
