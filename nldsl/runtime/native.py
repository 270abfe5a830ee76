"""Loops in C, compiled when they are first needed and called on the memory of tensors."""

from __future__ import annotations

import ctypes
import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from nldsl.toolchain.compiler import compiler, harmless, identity, machine, no_compiler, ran
from nldsl.toolchain.kept import drop, found, keep, key_of, place

__all__ = ["FLAGS", "REAL", "Step", "built", "compiled", "compiler", "no_compiler"]

PLAIN = "-O3 -shared -fPIC -lm".split()
HERE = [*PLAIN, *"-march=native -fno-math-errno -fno-trapping-math -funroll-loops".split()]
FLAGS = [
    [*HERE, threads, *wide]
    for threads in ("-fopenmp", "-fopenmp-simd")
    for wide in (["-mprefer-vector-width=512"], [])
] + [PLAIN]
"""Options of the compiler, the best first; the first with which it makes what runs here is used.

Without the library of OpenMP (`-fopenmp-simd`) lanes have one thread."""
MORE = "NLDSL_CFLAGS"
"""Names options that follow ours: `-march=x86-64-v3`."""
PROBE = """
#include <math.h>
int step(long n, const long *sizes, void **arrays, const double *numbers, int threads) {
  double sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum)
  for (long i = 0; i < n; i++) sum += exp(numbers[i]);
  return sum > 0;
}
"""
"""What shows whether options are understood, and whether what comes of them can be loaded."""
REAL = {torch.float32: "float", torch.float64: "double"}
Step = Callable[[int, Any, Any, Any, int], int]
"""`step(tensors, sizes, arrays, numbers, threads)`: arrays of numbers and of pointers as `ctypes` has them.

What it returns is 0 but for a loop that looks for something."""


@cache
def compiled(text: str, real: str) -> Step | None:
    """`step` of a C text, or `None` if the compiler refuses it, or what it makes may not be run here.

    The arrays of every tensor are contiguous and of the type `real`.
    """
    made = _built(text, real)
    return None if isinstance(made, str) else made


@cache
def built(text: str, real: str) -> Step | str:
    """`step` as of `compiled`, or the reason why there is none."""
    return _built(text, real)


def _built(text: str, real: str) -> Step | str:
    command, source = compiler(), f"typedef {real} real;\n{text}"
    if not command:
        return no_compiler()
    more, why = harmless(shlex.split(os.environ.get(MORE, "")), MORE), ""
    # What has been kept was made with options that work.
    step = _kept(command, source, [*FLAGS[0], *more])
    if step is not None:
        return step
    for flags in ([*known, *more] for known in FLAGS):
        try:
            refusal = _refused(command, tuple(flags))
            made = refusal or _kept(command, source, flags) or _made(command, source, flags)
        except OSError as error:
            return f"what the C compiler makes may not be run here ({error.strerror or error})"
        if not isinstance(made, str):
            return made
        why = why or made
    return why


@cache
def _refused(command: str, flags: tuple[str, ...]) -> str:
    """Why nothing comes of such options; empty if something does."""
    made = _made(command, PROBE, flags, kept=False)
    return made if isinstance(made, str) else ""


def _made(command: str, source: str, flags: Sequence[str], kept: bool = True) -> Step | str:
    """`step` of a whole text, made anew."""
    # A folder of its own: threads and forked processes never write where another one reads.  What is loaded
    # stays when its file is gone, so nothing is left behind by a process that is killed.
    with tempfile.TemporaryDirectory(prefix="nldsl-", ignore_cleanup_errors=True) as folder:
        text, library = Path(folder) / "kernel.c", Path(folder) / "kernel.so"
        text.write_text(source, encoding="utf-8")
        why = ran(command, str(text), "-o", str(library), *flags)
        if why:
            return why
        try:
            step = _loaded(library)
        except OSError as error:
            return f"what the C compiler makes may not be run here ({error})"
        where = place().folder if kept else None
        if where is not None:
            keep(where, _key(command, source, flags), library)
        return step


def _kept(command: str, source: str, flags: Sequence[str]) -> Step | None:
    """`step` of a whole text, as another process has made it."""
    folder = place().folder
    path = found(folder, _key(command, source, flags)) if folder is not None else None
    if path is None:
        return None
    try:
        return _loaded(path)
    except OSError:
        drop(path)
        return None


def _key(command: str, source: str, flags: Sequence[str]) -> str:
    return key_of([source, identity(command), machine(), *flags])


def _loaded(library: Path) -> Step:
    function = ctypes.CDLL(str(library)).step
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 3, ctypes.c_int]
    step: Step = function
    return step
