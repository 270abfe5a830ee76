"""How close a run comes to what the machine can do: its products against the best rate of products."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch

from nldsl.driver.compile import plan_of
from nldsl.spec.program import Program
from nldsl.view.cost import Costs, cost_of

SIZE, ROUNDS = 1024, 4


@cache
def peak(device: str, kind: torch.dtype) -> float:
    """Floating-point operations per second of a square product here, with as many threads as torch has.

    Example:
        >>> peak("cpu", torch.float32) > 1e8
        True
    """
    work, flops = product(1, SIZE, SIZE, SIZE, device=device, kind=kind)
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return flops / best


def product(
    batch: int,
    rows: int,
    inner: int,
    columns: int,
    *,
    device: str = "cpu",
    kind: torch.dtype = torch.float32,
) -> tuple[Callable[[], object], int]:
    """A product `[batch, rows, inner] [batch, inner, columns]` to call, and its floating-point operations.

    Example:
        >>> work, flops = product(2, 3, 4, 5)
        >>> work().shape, flops
        (torch.Size([2, 3, 5]), 240)
    """

    # Not random: the generator is the run's own, and half of its state would be gone when it is resumed.
    def made(*shape: int) -> torch.Tensor:
        return torch.linspace(-1.0, 1.0, math.prod(shape), device=device).view(shape).to(kind)

    a, b = made(batch, rows, inner), made(batch, inner, columns)
    out = a.new_empty(batch, rows, columns)
    return lambda: torch.bmm(a, b, out=out), 2 * batch * rows * inner * columns


def operations(model: Any, length: int) -> int:
    """Floating-point operations of products that training takes per token, in windows of `length`.

    Counted from the program by fixed formulas (`nldsl explain` shows them), never from what the code does.
    """
    return _cost(model.program).total.training.at(length)


@lru_cache(maxsize=2)
def _cost(program: Program) -> Costs:
    """What a program costs: planned once, not at every evaluation."""
    return cost_of(program, plan_of(program))
