"""What passes over chunks in lanes have in common: a form is a way forward and a way back, and has widths.

Shapes: chunks `[N, B, H, C, ..]`, sequences `[B, T, H, ..]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from nldsl.native.lanes import Lanes
from nldsl.native.steps import ordinary
from nldsl.native.turns import packed

Key = TypeVar("Key", bound=Hashable)
Form = TypeVar("Form", bound="PassForm")


class PassForm:
    """Passes of one form; `seen`: how often chunks of a width have come up."""

    def __init__(self, ahead: Callable[..., Any], behind: Callable[..., Any]) -> None:
        self.ahead, self.behind = Lanes(ahead, 2), Lanes(behind, 2)
        self.seen: Counter[int] = Counter()

    @property
    def reasons(self) -> list[str]:
        """Why torch computes what it still does."""
        return [*self.ahead.reasons.values(), *self.behind.reasons.values()]

    def can(self, given: Iterable[Tensor | None]) -> bool:
        """Whether nothing has been found against it, and these are ordinary tensors in an ordinary call."""
        known = [x for x in given if x is not None]
        return not self.reasons and not torch.compiler.is_compiling() and ordinary(known)


class PassForms(Generic[Key, Form]):
    """All forms of the passes of a block; `after`: in place of `AFTER`."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.forms: dict[Key, Form] = {}
        self.others: dict[str, None] = {}
        """What calls have had that no form is for."""

    @property
    def reasons(self) -> dict[str, None]:
        """Why torch computes what it still does, each once."""
        return dict.fromkeys(reason for form in self.forms.values() for reason in form.reasons) | self.others

    @property
    def count(self) -> int:
        """How many functions have been compiled so far."""
        return sum(form.ahead.compiled + form.behind.compiled for form in self.forms.values())


def as_laid(x: Tensor) -> Tensor:
    """As it was laid, though hooks may have kept it otherwise."""
    return x if packed([x[0]]) else x.contiguous()


def tokens_of(x: Tensor) -> Tensor:
    """`[B, T, H, ..]` of the chunks `[N, B, H, C, ..]`.

    >>> tokens_of(torch.zeros(5, 2, 3, 4, 7)).shape
    torch.Size([2, 20, 3, 7])
    """
    return x.permute(1, 0, 3, 2, *range(4, x.dim())).flatten(1, 2)
