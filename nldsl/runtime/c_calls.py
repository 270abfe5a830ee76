"""What all loops in C that stand in for torch share: when they may, and how they are called."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from nldsl.runtime.native import REAL, Step, compiled, compiler


def traced() -> bool:
    """Whether operations are written down or changed rather than only done."""
    return (
        is_compiling()
        or _get_tracing_state() is not None
        or _len_torch_dispatch_stack() > 0
        or peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def loop(text: str, like: Tensor) -> Step | None:
    """The functions of `text` in C for numbers like these, if there are any.

    Example:
        >>> loop("", torch.ones(2, dtype=torch.long)) is None
        True
    """
    if not like.is_cpu or like.dtype not in REAL or traced() or not compiler():
        return None
    return compiled(text, REAL[like.dtype])


class _Several:
    """The process whose loops have had several threads."""

    process = 0


def threads() -> int:
    """Threads of a loop: those of torch, but one where this process was forked behind loops of several.

    The library of OpenMP would wait there for threads that have stayed behind.

    >>> threads() == torch.get_num_threads()
    True
    """
    count, process = torch.get_num_threads(), os.getpid()
    if _Several.process and _Several.process != process:
        return 1
    if count > 1:
        _Several.process = process
    return count


def call(
    step: Step, what: int, sizes: Sequence[int], arrays: Sequence[Tensor | None], *numbers: float
) -> int:
    """Function `what` of `step`, and what it returns; the caller keeps the arrays until it is back."""
    # Half the time of arrays of `ctypes`, which convert number by number.
    given = array("l", sizes)
    places = array("Q", [0 if x is None else x.data_ptr() for x in arrays])
    rates = array("d", numbers) if numbers else None
    first, second = given.buffer_info()[0], places.buffer_info()[0]
    third = None if rates is None else rates.buffer_info()[0]
    return step(what, first, second, third, threads())
