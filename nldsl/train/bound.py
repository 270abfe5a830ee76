"""How close a run comes to what the machine can do: its products against the best rate of products."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch

from nldsl.driver.compile import plan_of
from nldsl.view.cost import cost_of

SIZE, ROUNDS = 1024, 4


@cache
def peak(device: str, kind: torch.dtype) -> float:
    """Floating-point operations per second of a square product here, with as many threads as torch has.

    Example:
        >>> peak("cpu", torch.float32) > 1e8
        True
    """
    # Not random: the generator is the run's own, and half of its state would be gone when it is resumed.
    a = torch.linspace(-1.0, 1.0, SIZE * SIZE, device=device).view(SIZE, SIZE).to(kind)
    b = a.mT.contiguous()
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        a @ b
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * SIZE**3 / best


def operations(model: Any, length: int) -> int:
    """Floating-point operations of products that training takes per token, in windows of `length`.

    Counted from the program by fixed formulas (`nldsl explain` shows them), never from what the code does.
    """
    return cost_of(model.program, plan_of(model.program)).total.training.at(length)
