"""Weights of which every process holds a share (`DTensor`): what a rule sees of them, and what all agree on.

An element-wise rule acts on the share, for no element sees another.  A rule that looks at a weight as a whole
gets the whole: shares are gathered, every process does the same, and keeps its share of what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn


def sharded(tensor: Any) -> bool:
    """Whether a tensor is a `DTensor`; builds of torch without processes have no such class to ask for.

    >>> sharded(torch.zeros(2))
    False
    """
    return type(tensor) not in (Tensor, nn.Parameter) and hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """The share of this process, in whose memory it lies; any other tensor is its own.

    >>> x = torch.zeros(2)
    >>> local(x) is x
    True
    """
    if not sharded(tensor):
        return tensor
    with torch.no_grad():
        share = cast(Any, tensor).to_local()
    made: Tensor = share.wait() if hasattr(share, "wait") else share
    return made


def as_weight(p: Any, g: Any) -> Any:
    """The gradient `g`, divided as its weight `p` is."""
    if sharded(p) and sharded(g) and g.placements != p.placements:
        return g.redistribute(placements=p.placements)
    return g


def divided_alike(value: Any, p: Any) -> bool:
    """Whether a memory as large as its weight is divided among processes as the weight is."""
    return sharded(value) == sharded(p) and (not sharded(p) or value.placements == p.placements)


def on_whole(update: Callable[..., None], kept: Sequence[Any], g: Any) -> None:
    """Call `update(weight, gradient, *memories)` with all of every tensor; `kept` are weight and memories."""
    found = [_whole(t).clone() if sharded(t) else t for t in kept]
    update(found[0], _whole(g), *found[1:])
    for own, made in zip(kept, found, strict=True):
        if sharded(own):
            share = type(own).from_local(made, own.device_mesh, run_check=False)
            local(own).copy_(local(share.redistribute(placements=own.placements)))


def _whole(tensor: Any) -> Any:
    return tensor.full_tensor() if sharded(tensor) else tensor


def anywhere(found: bool, weights: Iterable[Tensor]) -> bool:
    """Whether any process that holds shares of these weights has `found`; all of them have to ask."""
    for mesh in dict.fromkeys(mesh for p in weights if (mesh := getattr(p, "device_mesh", None))):
        flag = torch.tensor(float(found), device=mesh.device_type)
        for axis in range(mesh.ndim):
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, mesh.get_group(axis))
        found = bool(flag)
    return found
