"""Memory of freed tensors that a process keeps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nldsl.runtime.allocator import MAPPED, in_large_pages

FAULTS = """
import resource, sys, torch, nldsl
if "keep" in sys.argv:
    print(nldsl.keep_freed_memory())
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def pages(*arguments: str) -> list[str]:
    made = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True
    )
    return made.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    can, after = pages("keep")
    if can == "False":
        pytest.skip("this C library has no such option")
    (before,) = pages()
    # Eight tensors of 64 MiB: with pages of 4 KiB 131,072 faults, with pages of 2 MiB 256.
    assert int(before) >= 256
    assert int(after) < int(before) / 10


def flags_of(place: int) -> str:
    """What the system has been told of the memory at an address."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(bounds[1], 16) <= place < int(bounds[2], 16)
        elif here and line.startswith("VmFlags:"):
            return line
    return ""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has no large pages"
)
def test_large_arrays_ask_for_large_pages() -> None:
    small, large = (in_large_pages(torch.empty(size)) for size in (MAPPED // 8, MAPPED // 2))
    assert " hg" in flags_of(large.data_ptr() + large.nbytes // 2)
    assert " hg" not in flags_of(small.data_ptr())
