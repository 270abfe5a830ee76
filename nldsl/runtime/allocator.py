"""What the allocator of the C library does with the memory of freed tensors."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

from torch import Tensor

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
"""Both are names of `mallopt(3)`."""
MAPPED = 2**25
"""Bytes from which on glibc maps an array anew, every time it is made."""
LARGE = 2**21
"""Bytes of a large page."""


def in_large_pages(x: Tensor) -> Tensor:
    """`x`, just made and of no values yet, in large pages if it is large and the system has them.

    Memory that is mapped anew costs a fault for every page where it is first written, 4 KiB at a time.
    Elsewhere than on Linux, and where the system refuses, nothing happens.

    >>> import torch
    >>> in_large_pages(torch.empty(3)).shape
    torch.Size([3])
    """
    if x.nbytes < MAPPED or not x.is_cpu:
        return x
    advice, advise = getattr(mmap, "MADV_HUGEPAGE", None), _advise()
    if advice is not None and advise is not None:
        start = -(-x.data_ptr() // LARGE) * LARGE
        size = (x.data_ptr() + x.nbytes) // LARGE * LARGE - start
        advise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)
    return x


@cache
def _advise() -> Any:
    """`madvise` of the C library, if it has it; asked once, which takes as long as a small call."""
    return getattr(ctypes.CDLL(None), "madvise", None)


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones; whether the C library can.

    glibc maps every array above 32 MiB anew and gives the end of its heap back as soon as it is free, so a
    training step fetches the same pages again and again, with a page fault for every 4 KiB.
    Afterwards nothing is mapped and nothing given back: the process holds what it once needed until
    it ends, also while it needs less.  Whatever else runs in the process is affected too, so nothing of
    this package does it on its own but the commands `nldsl train` and `nldsl run`.  Elsewhere than on
    Linux with glibc nothing happens.

    >>> import nldsl
    >>> nldsl.keep_freed_memory() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # musl has the name for linking only: it answers 0, "not done".
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
