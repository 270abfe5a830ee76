"""Arrays that native mode fills in one step, in memory that the next step fills again.

The C library maps large arrays anew every time, and the system clears what it maps: 100 MiB are
23 ms of a step.
"""

from __future__ import annotations

import mmap
import sys
import weakref
from collections import deque
from collections.abc import Sequence
from math import prod
from threading import RLock

import torch
from torch import Tensor

LARGE = 2**21
"""Bytes of a large page."""
LEAST = 2**20
"""Bytes from which on an array has memory of its own here."""


class Store:
    """Memory that nobody uses; together with what is in use it is never more than once was in use at a time.

    >>> store = Store()
    >>> x = store.empty((LEAST, 2), torch.float32)
    >>> place = x.data_ptr()
    >>> del x
    >>> store.empty((2 * LEAST,), torch.float32).data_ptr() == place
    True
    """

    def __init__(self) -> None:
        self.free: list[mmap.mmap] = []
        """The one that was used last stands last."""
        self.used = self.most = 0
        self._left: deque[mmap.mmap] = deque()
        self._lock = RLock()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Numbers of no values yet, no view of others: what a function returns may be changed in place."""
        count = prod(shape)
        size = -(-count * dtype.itemsize // LARGE) * LARGE
        if count * dtype.itemsize < LEAST or not sys.platform.startswith("linux"):
            return torch.empty(shape, dtype=dtype, device="cpu")
        with self._lock:
            self._collect()
            fits = [place for place in self.free if len(place) == size]
            if fits:
                self.free.remove(fits[-1])
            place = fits[-1] if fits else _mapped(size)
            self.used += size
            self.most = max(self.most, self.used)
            self._collect()
        view = memoryview(place)
        # What shares the memory of the tensor holds the view; when the last is gone, so is that.
        weakref.finalize(view, self._left.append, place).atexit = False
        return torch.frombuffer(view, dtype=dtype, count=count).resize_(shape)

    def clear(self) -> None:
        """Give back what nobody uses."""
        with self._lock:
            self._collect()
            self.free.clear()
            self.most = self.used

    def _collect(self) -> None:
        """Take in what has been left: finalizers run at any moment, in any thread, so they only append."""
        while self._left:
            place = self._left.popleft()
            self.used -= len(place)
            self.free.append(place)
        while self.free and self.used + sum(map(len, self.free)) > self.most:
            self.free.pop(0)


def _mapped(size: int) -> mmap.mmap:
    """Memory of this process alone, also after a fork, in large pages if the system has them."""
    place = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            place.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass
    return place


STORE = Store()
"""That of native mode."""


def empty_like_rows(x: Tensor, width: int) -> Tensor:
    """Rows `[.., width]` of no values yet, as many as those of `x [.., K]` and of their type."""
    return STORE.empty((*x.shape[:-1], width), x.dtype)
