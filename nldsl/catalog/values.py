"""The words every stage uses for values: shapes, kinds, static values, initialisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
Static = int | float | bool | str | tuple["Static", ...] | None
Options = tuple[tuple[str, Static], ...]
"""Sorted name-value pairs; hashable.  Read one with `option(options, name)`."""

Kind = Literal["token", "scalar", "heads", "vector", "headed", "matrix"]
"""What a value is at one token.

token `()` integer | scalar `()` | heads `[H]` one number per head | vector `[d]` |
headed `[H, d]` | matrix `[a, b]` (weights in maps and rules only).
"""


@dataclass(frozen=True)
class Initialiser:
    """How a slow parameter or a learned initial state starts.

    normal: N(0, scale^2) | constant: filled with `scale` | identity: `scale` times the identity.
    """

    kind: Literal["normal", "constant", "identity"]
    scale: float


Role = Literal["matrix", "embedding", "head", "norm", "rest"]
