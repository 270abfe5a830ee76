"""The weights of memories side by side as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def side_by_side(parts: Sequence[Tensor], dim: int) -> Tensor:
    """`torch.stack(parts, dim)`; without a copy if they lie in one tensor like that already.

    A call leaves its state as slices of one stack.  Where no gradient goes back through them the next call
    takes up the stack itself: nothing is written into it.

    >>> stack = torch.zeros(2, 3, 4)
    >>> side_by_side(stack.unbind(1), 1).data_ptr() == stack.data_ptr()
    True
    >>> side_by_side([torch.zeros(2), torch.ones(2)], 1).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    step = None if torch.compiler.is_compiling() else _step(parts)
    if step is None:
        return torch.stack(tuple(parts), dim)
    first = parts[0]
    sizes, strides = list(first.shape), list(first.stride())
    sizes.insert(dim, len(parts))
    strides.insert(dim, step)
    return first.as_strided(sizes, strides)


def _step(parts: Sequence[Tensor]) -> int | None:
    """How far apart in one storage they lie; `None` if they do not, or if gradients are asked for."""
    first = parts[0]
    if type(first) is not Tensor or len(parts) < 2:
        return None
    start, storage = int(first.storage_offset()), first.untyped_storage().data_ptr()
    step = int(parts[1].storage_offset()) - start
    for i, part in enumerate(parts):
        if part.requires_grad or type(part) is not Tensor or part.storage_offset() != start + i * step:
            return None
        if part.stride() != first.stride() or part.shape != first.shape or part.dtype != first.dtype:
            return None
        if part.untyped_storage().data_ptr() != storage:
            return None
    return step if step > 0 else None
