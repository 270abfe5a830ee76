"""Room for what passes over memory make: of torch, till native mode gives what earlier steps have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack


class Arrays:
    """Where room of `least` bytes and more comes from: `empty(shape, dtype)`, of torch where it is `None`."""

    empty: Callable[[Sequence[int], torch.dtype], Tensor] | None = None
    least = 0


ARRAYS = Arrays()


def room_of(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of a shape that have no values yet.

    >>> room_of((3, 4), torch.float32, torch.device("cpu")).shape
    torch.Size([3, 4])
    """
    # Asked once, for another thread may take a model out of lanes.  Modes of torch have arrays of their own.
    empty = ARRAYS.empty
    if empty is not None and device.type == "cpu" and not _len_torch_dispatch_stack():
        # What is small comes from torch anyway, and to ask for it there takes half the time.
        if prod(shape) * dtype.itemsize >= ARRAYS.least:
            return empty(shape, dtype)
    return torch.empty(shape, dtype=dtype, device=device)


def room_like(x: Tensor, *shape: int) -> Tensor:
    """The same, of the type of `x` and where it is.

    >>> room_like(torch.ones(2), 3, 4).shape
    torch.Size([3, 4])
    """
    return room_of(shape, x.dtype, x.device)
