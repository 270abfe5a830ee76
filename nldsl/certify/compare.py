"""Two numbers that should be equal: how far apart they are, and how a check keeps its worst case."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

BOUND = 1e-9
"""Relative, in float64: |compiled - reference| / |reference|, largest entries of a tensor."""
CAUSAL = 1e-12
"""What a later token may change in earlier outputs: rounding of a differently shaped product."""
FLOOR = 1e-6
"""A tensor smaller than this share of the largest of its group is measured by that share: what should
be zero is rounding."""


class LeftOutError(Exception):
    """A check has nothing to say about a program; the message says why."""


@dataclass(frozen=True)
class Pair:
    """A tensor of the compiled program and its counterpart; `part` of the thing at `path`."""

    path: str
    part: str
    level: str
    got: Tensor
    want: Tensor

    @property
    def where(self) -> str:
        """`blocks[0].mixer.M running W1 (level recall, every 64 tokens)`."""
        return f"`{self.path}` {self.part}" + (f" ({self.level})" if self.level else "")


@dataclass(frozen=True)
class Finding:
    """One comparison of a check: where, how far apart, and what is allowed."""

    where: str
    error: float
    bound: float = BOUND

    @property
    def good(self) -> bool:
        """Whether it is within the bound (what is not a number never is)."""
        return self.error <= self.bound


def size(tensor: Tensor) -> float:
    """The largest entry."""
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0


def distance(got: Tensor, want: Tensor, floor: float = 0.0) -> float:
    """|got - want| / max(|want|, floor), largest entries; infinite if shapes differ or one is not finite."""
    if got.shape != want.shape:
        return math.inf
    if not want.numel():
        return 0.0
    apart = float((got.detach() - want.detach()).abs().max())
    if math.isnan(apart):
        return math.inf
    return 0.0 if apart == 0.0 else apart / max(size(want), floor, 1e-300)


def farthest(pairs: Iterable[Pair], *, cap: float = 1.0) -> Finding:
    """The worst pair of a group; the floor is `FLOOR` of the largest entry in it, or of `cap` if less."""
    found = list(pairs)
    floor = FLOOR * min(max((size(p.want) for p in found), default=0.0), cap)
    worst = Finding("", 0.0)
    for pair in found:
        error = distance(pair.got, pair.want, floor)
        if error > worst.error or not worst.where:
            worst = Finding(pair.where, error)
    return worst
