"""Memory of freed tensors that a process keeps."""

import subprocess
import sys

import pytest

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
