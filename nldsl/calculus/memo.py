"""Results kept for the very same values: programs are frozen, and comparing them costs more than a lookup."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def by_identity(size: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep the last `size` results of a function of frozen values, found again by the values' identity.

    Example:
        >>> calls = []
        >>> count = by_identity(2)(lambda value: calls.append(value) or len(calls))
        >>> first = (1, 2)
        >>> count(first), count(first), count(tuple([1, 2]))
        (1, 1, 2)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        # The arguments are kept too, so that no other value can take over their identity.
        kept: OrderedDict[tuple[int, ...], tuple[Any, R]] = OrderedDict()

        @wraps(function)
        def lookup(*args: P.args, **options: P.kwargs) -> R:
            key = (*map(id, args), *map(id, options.values()))
            if key in kept:
                kept.move_to_end(key)
                return kept[key][1]
            result = function(*args, **options)
            kept[key] = ((args, options), result)
            if len(kept) > size:
                kept.popitem(last=False)
            return result

        return lookup

    return decorate
