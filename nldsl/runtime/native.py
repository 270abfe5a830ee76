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
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Lives as long as the process: nothing is loaded that it did not write itself."""
    return tempfile.TemporaryDirectory(prefix="nldsl-")


@cache
def compiled(text: str, real: str) -> Step | None:
    """`step` of a C text, or `None` if the compiler refuses it, or what it makes may not be run here.

    The arrays of every tensor are contiguous and of the type `real`.
    """
    folder = Path(_folder().name)
    stem = f"kernel{len(list(folder.iterdir()))}"
    source, library = folder / f"{stem}.c", folder / f"{stem}.so"
    source.write_text(f"typedef {real} real;\n{text}", encoding="utf-8")
    if not any(_runs([compiler(), str(source), "-o", str(library), *flags]) for flags in FLAGS):
        return None
    try:
        function = ctypes.CDLL(str(library)).step
    except OSError:
        return None
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 3, ctypes.c_int]
    step: Step = function
    return step


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
