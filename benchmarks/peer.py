"""What a comparison with another package consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import nldsl

BATCH, WIDTH, HEADS, SIZE, TOKENS, CHUNK = 4, 256, 4, 64, 1024, 64


native = False
"""Whether ours run in native lanes."""


@dataclass
class Pair:
    """Two things that do the same work, `most` times; `other`, on fewer tokens, counts `scale` times."""

    name: str
    ours: Callable[[], object]
    other: Callable[[], object]
    check: Callable[[], str] = lambda: ""
    scale: float = 1.0
    most: int = 100


Peers = Callable[[], list[Pair]]


def ours(*given: Any, **options: Any) -> Any:
    """What `nldsl.compile` makes, in native lanes where they are asked for."""
    model = nldsl.compile(*given, **options)
    if native:
        print(f"  {nldsl.native(model, at_once=True)}")
    return model


def tokens(count: int = TOKENS, width: int = WIDTH) -> Tensor:
    return torch.randn(BATCH, count, width)


def passes(module: torch.nn.Module, x: Tensor) -> Callable[[], object]:
    """Forward and backward: the gradients of everything with respect to a fixed random sum of the outputs."""
    leaves = [x.requires_grad_(), *(p for p in module.parameters() if p.requires_grad)]
    seed = torch.randn(*x.shape)

    def once() -> Any:
        return torch.autograd.grad(first(module(x)), leaves, seed, allow_unused=True)

    return once


def first(answer: Any) -> Tensor:
    """The output of a module that also returns a state."""
    return answer if isinstance(answer, Tensor) else answer[0]


def difference(a: torch.nn.Module, b: torch.nn.Module, x: Tensor) -> str:
    with torch.no_grad():
        y, z = first(a(x)), first(b(x))
    return f"same weights, outputs differ by {float((y - z).abs().max() / y.abs().max()):.0e} of the largest"
