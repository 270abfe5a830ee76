"""What a weight answers on the way through a chunk when it decays per channel.

`channel_filters`: what is left at t of what was there at j, `[*lead, C, C, n]` along the keys or values, and
of the start `[*lead, C, n]`.  No logarithms: gates may be of any sign, and zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

Axis = Literal["key", "value"]
Pushed = tuple[Tensor, Tensor, Tensor]
"""Inputs `[*lead, J, i]`, slopes `[*lead, J, o]`, how much of each lesson a token adds `[*lead, C, J]`."""


def channel_filters(retain: Tensor, strict: bool) -> tuple[Tensor, Tensor]:
    """Both filters of gates `[*lead, C, n]`; `strict`: in front of the token's own step.

    >>> after, start = channel_filters(torch.tensor([[0.5], [0.0]]), False)
    >>> after.squeeze(-1).tolist(), start.flatten().tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.0])
    """
    size = retain.shape[-2]
    later = torch.ones(size, size, dtype=torch.bool, device=retain.device).tril(-1).unsqueeze(-1)
    steps = torch.where(later, retain.unsqueeze(-2), torch.ones_like(retain[..., :1, :]).unsqueeze(-2))
    seen = torch.ones(size, size, dtype=retain.dtype, device=retain.device).tril().unsqueeze(-1)
    after, start = steps.cumprod(-3) * seen, retain.cumprod(-2)
    if not strict:
        return after, start
    none = torch.zeros_like(after[..., :1, :, :])
    return torch.cat([none, after[..., :-1, :, :]], -3), torch.cat(
        [torch.ones_like(start[..., :1, :]), start[..., :-1, :]], -2
    )


def answer(
    z: Tensor,
    start: Tensor,
    filters: tuple[Tensor, Tensor],
    axis: Axis,
    pushed: Iterable[Pushed],
    slots: Iterable[tuple[Tensor, Tensor]],
) -> Tensor:
    """`z_t D_t^T`; `slots` are momenta with how much of each a token adds `[*lead, C]`."""
    after, carried = filters
    y = _seen(z, start, carried, axis)
    for slot, added in slots:
        y = y + _seen(z, slot, torch.einsum("...tsn,...s->...tn", after, added), axis)
    for x, dy, added in pushed:
        left = torch.einsum("...tsn,...sj->...tjn", after, added)
        if axis == "key":
            scores = torch.einsum("...tjn,...tn,...jn->...tj", left, z, x)
            y = y - scores @ dy
        else:
            y = y - torch.einsum("...tjn,...tj,...jn->...tn", left, z @ x.mT, dy)
    return y


def _seen(z: Tensor, weight: Tensor, left: Tensor, axis: Axis) -> Tensor:
    return (z * left) @ weight.mT if axis == "key" else (z @ weight.mT) * left
