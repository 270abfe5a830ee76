"""What the allocator of the C library does with the memory of freed tensors."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
"""Both are names of `mallopt(3)`."""


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
