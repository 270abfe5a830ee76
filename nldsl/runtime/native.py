"""Loops in C, compiled when they are first needed and called on the memory of tensors."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

PLAIN = "-O3 -shared -fPIC -lm".split()
FLAGS = [
    [*PLAIN, *"-march=native -fno-math-errno -fno-trapping-math -funroll-loops -fopenmp".split(), *wide]
    for wide in (["-mprefer-vector-width=512"], [])
] + [PLAIN]
"""Options of the compiler, the best first; the first it takes is used."""
REAL = {torch.float32: "float", torch.float64: "double"}
Step = Callable[[int, Any, Any, Any, int], int]
"""`step(tensors, sizes, arrays, numbers, threads)`: arrays of numbers and of pointers as `ctypes` has them.

What it returns is 0 but for a loop that looks for something."""


@cache
def compiler() -> str:
    """The C compiler of this machine, `CC` first; empty if there is none."""
    wanted = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((found for name in wanted if name and (found := shutil.which(name))), "")


@cache
def compiled(text: str, real: str) -> Step | None:
    """`step` of a C text, or `None` if the compiler refuses it, or what it makes may not be run here.

    The arrays of every tensor are contiguous and of the type `real`.
    """
    try:
        # A folder of its own: threads and forked processes never write where another one reads.  What is
        # loaded stays when its file is gone, so nothing is left behind by a process that is killed.
        with tempfile.TemporaryDirectory(prefix="nldsl-", ignore_cleanup_errors=True) as folder:
            return _loaded(f"typedef {real} real;\n{text}", Path(folder))
    except OSError:
        return None


def _loaded(text: str, folder: Path) -> Step | None:
    source, library = folder / "kernel.c", folder / "kernel.so"
    source.write_text(text, encoding="utf-8")
    if not any(_runs([compiler(), str(source), "-o", str(library), *flags]) for flags in FLAGS):
        return None
    function = ctypes.CDLL(str(library)).step
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 3, ctypes.c_int]
    step: Step = function
    return step


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
