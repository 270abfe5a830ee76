"""Properties that are computed once, and that `torch.compile` follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Found = TypeVar("Found")


class once(Generic[Found]):  # noqa: N801
    """As `functools.cached_property`, whose lock (before Python 3.12) ends a graph of `torch.compile`.

    >>> class Sum:
    ...     @once
    ...     def total(self):
    ...         print("computed")
    ...         return 3
    >>> one = Sum()
    >>> one.total + one.total
    computed
    6
    """

    def __init__(self, function: Callable[[Any], Found]) -> None:
        self.function = function
        self.kept = f"_once_{function.__name__}"
        self.__doc__ = function.__doc__

    def __get__(self, owner: Any, kind: type | None = None) -> Found:
        if not hasattr(owner, self.kept):
            setattr(owner, self.kept, self.function(owner))
        found: Found = getattr(owner, self.kept)
        return found
