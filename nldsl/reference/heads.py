"""How values meet the copies of a `per head` memory.

A memory that is not per head is treated as one copy.  Weights of a per-head memory are `[H, *shape]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nldsl.spec.program import Memory

Weights = dict[str, Tensor]


def copies(memory: Memory) -> int:
    """How many copies of the memory one sample has."""
    return memory.heads if memory.per_head else 1


def unstack(weights: Weights, memory: Memory) -> list[Weights]:
    """The weights of every copy."""
    if not memory.per_head:
        return [dict(weights)]
    parts = {name: w.unbind(0) for name, w in weights.items()}
    return [{name: p[h] for name, p in parts.items()} for h in range(memory.heads)]


def stack(weights: Sequence[Weights], memory: Memory) -> Weights:
    """The inverse of `unstack`."""
    if not memory.per_head:
        return dict(weights[0])
    return {name: torch.stack([w[name] for w in weights]) for name in weights[0]}


def shares(value: Tensor, memory: Memory, size: int) -> list[list[Tensor]]:
    """What each copy gets of a key, query or target whose one-head size is `size`.

    A vector is split into heads; with `m H` heads on H copies, m consecutive heads share a copy; a
    number per head, or one number, broadcasts.
    """
    if not memory.per_head:
        return [[value.reshape(-1) if value.dim() > 1 else value]]
    heads = memory.heads
    if value.dim() == 0:
        return [[value]] * heads
    if value.dim() == 1 and value.shape[0] == heads and size != 1:
        return [[v] for v in value.unbind(0)]
    rows = list((value.reshape(-1, size) if value.dim() == 1 else value).unbind(0))
    group, left = divmod(len(rows), heads)
    if left or not group:
        raise ValueError(f"{len(rows)} heads do not fit the {heads} copies of memory `{memory.name}`")
    return [rows[h * group : (h + 1) * group] for h in range(heads)]


def per_copy(value: Tensor, memory: Memory, kind: str) -> list[Tensor]:
    """What each copy gets of a gate, a rate or another argument.

    `[H]` is one number per head, `[H, n]` one vector per head, a vector of `H n` numbers is split;
    a number, a matrix and anything else are the same for all.
    """
    if kind == "matrix":
        return [value] * copies(memory)
    if not memory.per_head:
        return [value.reshape(()) if value.numel() == 1 else value]
    heads = memory.heads
    if value.dim() > 0 and value.shape[0] == heads:
        return list(value.unbind(0))
    if value.dim() == 1 and value.shape[0] % heads == 0:
        return list(value.reshape(heads, -1).unbind(0))
    return [value] * heads


def gated(weight: Tensor, gate: Tensor, axis: str) -> Tensor:
    """A retention gate on one copy's weight `[out, in]`: number, per column, per row, or element."""
    if gate.dim() == 0 or axis in ("key", "element"):
        return weight * gate
    if axis == "value":
        return weight * gate[:, None]
    raise ValueError(f"a gate of shape {list(gate.shape)} is not one number per copy")
