"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.ops import silu_pullback
from torch import Tensor
from torch.nn import functional


def swiglu_map_kept(key: Tensor, W1: Tensor, W2: Tensor, W3: Tensor) -> tuple[Tensor, ...]:
    """`swiglu_map`, row by row, and what its way back needs."""
    matmul = key @ W2.mT
    matmul_2 = key @ W1.mT
    silu = functional.silu(matmul_2)
    mul = silu.mul_(matmul)
    return mul @ W3.mT, matmul, matmul_2


def swiglu_map_pullback(
    d_1: Tensor, key: Tensor, W1: Tensor, W2: Tensor, W3: Tensor, matmul: Tensor, matmul_2: Tensor
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight.
    """
    matmul_3 = d_1 @ W3
    mul = matmul * matmul_3
    silu_pullback_ = silu_pullback(mul, matmul_2)
    silu = functional.silu(matmul_2)
    mul_2 = matmul_3 * silu
    add = torch.baddbmm(silu_pullback_ @ W1, mul_2, W2)
    mul_3 = silu.mul_(matmul)
    return add, silu_pullback_, key, mul_2, key, d_1, mul_3


def swiglu_map_l2_gradient_kept(
    key: Tensor, target: Tensor, W1: Tensor, W2: Tensor, W3: Tensor
) -> tuple[Tensor, ...]:
    """`swiglu_map_l2_gradient`, row by row, and what its way back needs."""
    matmul = key @ W2.mT
    matmul_2 = key @ W1.mT
    silu = functional.silu(matmul_2)
    mul = matmul * silu
    sub = torch.baddbmm(target, mul, W3.mT, beta=-1)
    matmul_3 = sub @ W3
    mul_2 = matmul * matmul_3
    silu_pullback_ = silu_pullback(mul_2, matmul_2)
    mul_3 = silu.mul_(matmul_3)
    return key, silu_pullback_, key, mul_3, mul, sub, matmul, matmul_2, mul, sub, matmul_3


def swiglu_map_l2_gradient_pullback(
    d_1: Tensor,
    d_2: Tensor,
    d_3: Tensor,
    d_4: Tensor,
    d_5: Tensor,
    d_6: Tensor,
    key: Tensor,
    target: Tensor,
    W1: Tensor,
    W2: Tensor,
    W3: Tensor,
    matmul: Tensor,
    matmul_2: Tensor,
    mul: Tensor,
    sub: Tensor,
    matmul_3: Tensor,
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, then `dy, x`
    of every outer product of the gradient of every weight.
    """
    silu_pullback_ = silu_pullback(d_2, matmul_2)
    silu = functional.silu(matmul_2)
    mul_2 = silu_pullback_ * matmul_3
    mul_3 = matmul * silu_pullback_
    mul_4 = d_4 * silu
    add = mul_3.add_(mul_4)
    add_2 = d_6.baddbmm_(add, W3.mT)
    add_3 = d_5.baddbmm_(add_2, W3)
    mul_5 = silu * add_3
    add_4 = mul_2.add_(mul_5)
    add_5 = d_1.add_(d_3)
    sigmoid = torch.sigmoid(matmul_2)
    mul_6 = 2.0 * silu_pullback_
    sub_2 = d_2.sub_(mul_6)
    mul_7 = sigmoid.mul_(sub_2)
    add_6 = silu_pullback_.add_(mul_7)
    mul_8 = matmul * matmul_3
    mul_9 = add_6.mul_(mul_8)
    mul_10 = d_4.mul_(matmul_3)
    mul_11 = add_3.mul_(matmul)
    add_7 = mul_10.add_(mul_11)
    silu_pullback_2 = silu_pullback(add_7, matmul_2)
    add_8 = mul_9.add_(silu_pullback_2)
    add_9 = add_5.baddbmm_(add_8, W1)
    add_10 = add_9.baddbmm_(add_4, W2)
    return add_10, -add_2, add_8, key, add_4, key, sub, add, add_2, mul


class Probe(Module):
    """`probe(x)`.

    M: held (reads and gradients see the last commit: 16 tokens are parallel, and all chunks are one
    function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("M.W1", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.W2", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.W3", (8, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {
                    "W1": self.start(self.M.W1, batch),
                    "W2": self.start(self.M.W2, batch),
                    "W3": self.start(self.M.W3, batch),
                },
                "committed": {
                    "W1": self.start(self.M.W1, batch),
                    "W2": self.start(self.M.W2, batch),
                    "W3": self.start(self.M.W3, batch),
                },
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
                Pulled(swiglu_map_kept, swiglu_map_pullback, 1, (1, 1, 1)),
                Pulled(swiglu_map_l2_gradient_kept, swiglu_map_l2_gradient_pullback, 6, (1, 1, 2)),
            ),
            ((x[:, :, None],), x[:, :, None], x[:, :, None]),
            M_fade,
            (
                (
                    state["M"]["running"]["W1"][:, None],
                    state["M"]["running"]["W2"][:, None],
                    state["M"]["running"]["W3"][:, None],
                ),
                (
                    state["M"]["committed"]["W1"][:, None],
                    state["M"]["committed"]["W2"][:, None],
                    state["M"]["committed"]["W3"][:, None],
                ),
                (),
            ),
        )
        y = M_held.reads[0].squeeze(2)
        new["M"] = {
            "running": {
                "W1": M_held.running[0].squeeze(1),
                "W2": M_held.running[1].squeeze(1),
                "W3": M_held.running[2].squeeze(1),
            },
            "committed": {
                "W1": M_held.committed[0].squeeze(1),
                "W2": M_held.committed[1].squeeze(1),
                "W3": M_held.committed[2].squeeze(1),
            },
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
