"""Gradients summed over processes, in few large messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET = 25 << 20
"""Bytes of one message, at least."""


def used_anywhere(gradients: Sequence[Tensor | None], device: torch.device) -> list[bool]:
    """Which gradients some process has: what one has not is zero if another has it, and else nothing."""
    flags = torch.tensor([g is not None for g in gradients], dtype=torch.uint8, device=device)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return [bool(f) for f in flags.tolist()]


def buckets(tensors: Sequence[Tensor], limit: int = BUCKET) -> Iterator[list[Tensor]]:
    """Tensors in their order, in groups of one type and about `limit` bytes.

    Example:
        >>> [len(b) for b in buckets([torch.zeros(3)] * 5, limit=24)]
        [2, 2, 1]
    """
    group: list[Tensor] = []
    for t in tensors:
        if group and (group[0].dtype != t.dtype or sum(g.nbytes for g in group) >= limit):
            yield group
            group = []
        group.append(t)
    if group:
        yield group


@torch.no_grad()
def sum_over(parameters: Sequence[Tensor]) -> None:
    """The gradient of every parameter becomes its sum over the processes."""
    if not parameters:
        return
    used = used_anywhere([p.grad for p in parameters], parameters[0].device)
    for p, wanted in zip(parameters, used, strict=True):
        if wanted and p.grad is None:
            p.grad = torch.zeros_like(p)
    for group in buckets([p.grad for p in parameters if p.grad is not None]):
        flat = torch.cat([g.reshape(-1) for g in group])
        dist.all_reduce(flat)
        for g, summed in zip(group, flat.split([g.numel() for g in group]), strict=True):
            g.copy_(summed.view_as(g))


def rows_of(length: int, world: int) -> list[int]:
    """How many of `length` rows each of `world` processes holds under `Shard(0)`.

    Example:
        >>> rows_of(5, 4), rows_of(2, 3)
        ([2, 2, 1, 0], [1, 1, 0])
    """
    each = -(-length // world)
    return [max(0, min(each, length - r * each)) for r in range(world)]


@torch.no_grad()
def scatter_sum(gradients: Sequence[Tensor], rank: int, world: int) -> list[Tensor]:
    """Of every gradient summed over the processes, the rows of this one."""
    mine: list[Tensor] = []
    for group in buckets(gradients):
        pieces = [_padded(g, world) for g in group]
        sent = torch.cat(pieces, 1)
        got = sent.new_empty(sent.shape[1])
        dist.reduce_scatter_single(got, sent.reshape(-1))
        for g, part in zip(group, got.split([p.shape[1] for p in pieces]), strict=True):
            rows = rows_of(len(g), world)[rank]
            mine.append(part[: rows * g[0].numel()].view(rows, *g.shape[1:]).clone())
    return mine


def _padded(g: Tensor, world: int) -> Tensor:
    """`[world, n]`: what every process gets, zeros behind the end."""
    each = -(-len(g) // world) * g[0].numel()
    flat = g.new_zeros(world * each)
    flat[: g.numel()] = g.reshape(-1)
    return flat.view(world, each)
