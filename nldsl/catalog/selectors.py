"""Selectors of the `train` section: roles, and globs over parameter paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from nldsl.catalog.values import Role

ROLES: dict[str, Role] = {
    "matrices": "matrix",
    "embeddings": "embedding",
    "head": "head",
    "norms": "norm",
    "rest": "rest",
}
"""The selectors that are roles."""


def first_match(groups: Iterable[Sequence[str]], path: str, role: Role) -> tuple[int, str] | None:
    """The first group and selector that claim `path`; `rest` takes what is left over.

    Example:
        >>> first_match([("matrices",), ("norms", "rest")], "q.linear.bias", "rest")
        (1, 'rest')
    """
    listed = [tuple(selectors) for selectors in groups]
    for index, selectors in enumerate(listed):
        for selector in selectors:
            if ROLES.get(selector) == role or (selector not in ROLES and matches(selector, path)):
                return index, selector
    return next(((i, "rest") for i, selectors in enumerate(listed) if "rest" in selectors), None)


def matches(glob: str, path: str) -> bool:
    """Whether the glob means the path, with or without its indices.

    Example:
        >>> matches("blocks[*].q.*", "blocks[3].q.weight"), matches("blocks.q.*", "blocks[3].q.weight")
        (True, True)
    """
    literal = glob.replace("[", "\0").replace("]", "\1")
    marked = path.replace("[", "\0").replace("]", "\1")
    return fnmatchcase(marked, literal) or fnmatchcase(without_indices(path), glob)


def without_indices(path: str) -> str:
    """The path without its `[i]`.

    Example:
        >>> without_indices("blocks[3].F[1].W1")
        'blocks.F.W1'
    """
    return "".join(piece.rpartition("]")[2] if i else piece for i, piece in enumerate(path.split("[")))
