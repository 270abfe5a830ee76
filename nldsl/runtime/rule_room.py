"""Where the memories of a rule lie: in one piece of memory, in large pages, out of one another's way.

A step passes over all of them once.  Pages of 4 KiB cost a look into the page table each; and arrays that
begin at the same place of a page, as large ones do, compete for the same lines of the cache at every element.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable

import torch
from torch import Tensor

HUGE = 1 << 21
"""Bytes of a large page."""
PAGE = 4096
LINE = 64
LEAST = 1 << 17
"""Bytes from which on an array moves in: what it leaves free is nothing beside it."""


class Room:
    """Memory for so many bytes, in large pages where the system has them.

    Every array is a storage of its own, and the memory is given back with the last of them.

    >>> Room([LEAST] * 32).put(torch.ones(LEAST), torch.ones(LEAST), 2048).sum().item()
    131072.0
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        large = [size for size in sizes if size >= LEAST]
        self.free, self.place = sum(large), 0
        self.memory: mmap.mmap | None = None
        if self.free < 2 * HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
            return
        try:
            size = self.free + PAGE * len(large) + HUGE
            self.memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a limit on addresses, or a system without large pages
            return
        self.start = torch.frombuffer(self.memory, dtype=torch.uint8, count=1).data_ptr()
        self.place = -self.start % HUGE

    def put(self, value: Tensor, weight: Tensor, apart: int) -> Tensor:
        """`value`, or the same in here: `apart` bytes behind the place of its weight in the page."""
        plain = type(value) is Tensor and value.is_cpu and value.is_contiguous()
        if self.memory is None or not plain or not LEAST <= value.nbytes <= self.free:
            return value
        behind = weight.data_ptr() // LINE * LINE + apart - self.start
        self.place += (behind - self.place) % PAGE
        made = torch.frombuffer(self.memory, dtype=value.dtype, count=value.numel(), offset=self.place)
        self.place += -(-value.nbytes // LINE) * LINE
        self.free -= value.nbytes
        return made.view(value.shape).copy_(value)


def apart(index: int, count: int) -> int:
    """How far from the weight memory `index` of `count` begins in its page: all as far as may be.

    >>> [apart(i, 2) for i in range(2)]
    [1344, 2688]
    """
    return (index + 1) * PAGE // (count + 1) // LINE * LINE
