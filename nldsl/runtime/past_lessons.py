"""The last lessons of a memory: what `over c tokens` looks back upon (Omega rule, Eq. 68)."""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.runtime.sequence import taken, with_past

Lessons = dict[str, Tensor]
"""`key [B, c - 1, H, K]`, `target [B, c - 1, H, V]`, `weight [B, c - 1, H, 1]`, oldest first."""


def lessons(
    key: Tensor, target: Tensor, weight: Tensor, *, state: Lessons, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Lessons]:
    """The lessons of the last c tokens of every token, oldest first, and those to remember.

    `key [B, T, H, K]`, `target [B, T, H, V]`, `weight [B, T, H, 1]`; the answers are
    `[B, T, H, c, K]` and so on.  A lesson that has not been has weight zero; it stands there as the present
    one, so that whatever is computed of its key is finite.

    >>> x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    >>> empty = {n: torch.zeros(1, 1, 1, 1) for n in ("key", "target", "weight")}
    >>> keys, _, weights, after = lessons(x, x, torch.ones_like(x), state=empty, mask=None)
    >>> keys.flatten().tolist(), weights.flatten().tolist(), after["key"].item()
    ([1.0, 1.0, 1.0, 2.0], [0.0, 1.0, 1.0, 1.0], 2.0)
    """
    kept: Lessons = {}
    found = {}
    for name, present in (("key", key), ("target", target), ("weight", weight)):
        seen, order, kept[name] = with_past(present, state[name], mask)
        if not present.shape[1]:
            found[name] = present.unsqueeze(3).expand(*present.shape[:3], state[name].shape[1] + 1, -1)
            continue
        windows = seen.unfold(1, state[name].shape[1] + 1, 1).movedim(-1, 3)
        found[name] = windows if order is None else taken(windows, order.argsort(1))
    absent = found["weight"] == 0
    keys = torch.where(absent, key.unsqueeze(3), found["key"])
    targets = torch.where(absent, target.unsqueeze(3), found["target"])
    return keys, targets, found["weight"], kept
