"""Room for what passes over memory make: of torch, till native mode gives what earlier steps have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor


class Arrays:
    """Where room of `least` bytes and more comes from: `empty(count, dtype)`, of torch where it is `None`."""

    empty: Callable[[int, torch.dtype], Tensor] | None = None
    least = 0


ARRAYS = Arrays()


def room_of(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of a shape that have no values yet.

    >>> room_of((3, 4), torch.float32, torch.device("cpu")).shape
    torch.Size([3, 4])
    """
    if ARRAYS.empty is not None and device.type == "cpu":
        count = prod(shape)
        # What is small comes from torch anyway, and one operation less is half the time of asking for it.
        if count * dtype.itemsize >= ARRAYS.least:
            return ARRAYS.empty(count, dtype).view(shape)
    return torch.empty(shape, dtype=dtype, device=device)


def room_like(x: Tensor, *shape: int) -> Tensor:
    """The same, of the type of `x` and where it is.

    >>> room_like(torch.ones(2), 3, 4).shape
    torch.Size([3, 4])
    """
    return room_of(shape, x.dtype, x.device)
