"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import lt, where
from torch import Tensor


def matrix_kept(key: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """`matrix`, row by row, and what its way back needs."""
    return (key @ weight.mT,)


def matrix_pullback(d_1: Tensor, key: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight.
    """
    return d_1 @ weight, d_1, key


def matrix_huber_gradient_kept(key: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """`matrix_huber_gradient`, row by row, and what its way back needs."""
    matmul = key @ weight.mT
    sub = matmul - target
    abs = torch.abs(sub)
    lt_ = lt(abs, 1.0)
    where_ = where(lt_, 1.0, 0.0)
    mul = sub * where_
    sign = torch.sign(sub)
    where_2 = where(lt_, 0.0, 1.0)
    mul_2 = sign * where_2
    add = mul.add_(mul_2)
    return key, add, matmul


def matrix_huber_gradient_pullback(
    d_1: Tensor, d_2: Tensor, key: Tensor, target: Tensor, weight: Tensor, matmul: Tensor
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, then `dy, x`
    of every outer product of the gradient of every weight.
    """
    sub = matmul - target
    abs = torch.abs(sub)
    lt_ = lt(abs, 1.0)
    where_ = where(lt_, 1.0, 0.0)
    mul = d_2.mul_(where_)
    add = d_1.baddbmm_(mul, weight)
    return add, -mul, mul, key


class Probe(Module):
    """`probe(x)`.

    M: held (reads and gradients see the last commit: 16 tokens are parallel, and all chunks are one
    function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"weight": self.zeros(batch, 8, 8)},
                "committed": {"weight": self.zeros(batch, 8, 8)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        M_fade = fading(grid, x[:, :, None], rate=0.1)
        M_held = held_pass(
            grid,
            16,
            (
                Pulled(matrix_kept, matrix_pullback, 1, (1,)),
                Pulled(matrix_huber_gradient_kept, matrix_huber_gradient_pullback, 2, (1,)),
            ),
            ((x[:, :, None],), x[:, :, None], x[:, :, None]),
            M_fade,
            ((state["M"]["running"]["weight"][:, None],), (state["M"]["committed"]["weight"][:, None],), ()),
        )
        y = M_held.reads[0].squeeze(2)
        new["M"] = {
            "running": {"weight": M_held.running[0].squeeze(1)},
            "committed": {"weight": M_held.committed[0].squeeze(1)},
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
