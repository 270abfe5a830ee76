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


def residual_mlp_kept(key: Tensor, W2: Tensor, W1: Tensor) -> tuple[Tensor, ...]:
    """`residual_mlp`, row by row, and what its way back needs."""
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    add = torch.baddbmm(key, silu, W1.mT)
    return add, matmul


def residual_mlp_pullback(
    d_1: Tensor, key: Tensor, W2: Tensor, W1: Tensor, matmul: Tensor
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight.
    """
    silu_pullback_ = silu_pullback(d_1 @ W1, matmul)
    add = torch.baddbmm(d_1, silu_pullback_, W2)
    silu = functional.silu(matmul)
    return add, silu_pullback_, key, d_1, silu


def residual_mlp_l2_gradient_kept(key: Tensor, target: Tensor, W2: Tensor, W1: Tensor) -> tuple[Tensor, ...]:
    """`residual_mlp_l2_gradient`, row by row, and what its way back needs."""
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    add = torch.baddbmm(key, silu, W1.mT)
    sub = add.sub_(target)
    matmul_2 = sub @ W1
    silu_pullback_ = silu_pullback(matmul_2, matmul)
    return key, silu_pullback_, silu, sub, matmul, silu, sub, matmul_2


def residual_mlp_l2_gradient_pullback(
    d_1: Tensor,
    d_2: Tensor,
    d_3: Tensor,
    d_4: Tensor,
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    W1: Tensor,
    matmul: Tensor,
    silu: Tensor,
    sub: Tensor,
    matmul_2: Tensor,
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, then `dy, x`
    of every outer product of the gradient of every weight.
    """
    silu_pullback_ = silu_pullback(d_2, matmul)
    add = d_4.baddbmm_(silu_pullback_, W1.mT)
    add_2 = d_1.add_(add)
    sigmoid = torch.sigmoid(matmul)
    mul = 2.0 * silu_pullback_
    sub_2 = d_2.sub_(mul)
    mul_2 = sigmoid.mul_(sub_2)
    add_3 = mul_2.add_(silu_pullback_)
    mul_3 = add_3.mul_(matmul_2)
    add_5 = d_3.baddbmm_(add, W1)
    silu_pullback_2 = silu_pullback(add_5, matmul)
    add_6 = mul_3.add_(silu_pullback_2)
    add_7 = add_2.baddbmm_(add_6, W2)
    return add_7, -add, add_6, key, sub, silu_pullback_, add, silu


class Probe(Module):
    """`probe(x)`.

    M: held (reads and gradients see the last commit: 16 tokens are parallel, and all chunks are one
    function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("M.W2", (8, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.W1", (8, 8), "matrix", normal(0.3535533905932738))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "committed": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
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
                Pulled(residual_mlp_kept, residual_mlp_pullback, 1, (1, 1)),
                Pulled(residual_mlp_l2_gradient_kept, residual_mlp_l2_gradient_pullback, 4, (1, 2)),
            ),
            ((x[:, :, None],), x[:, :, None], x[:, :, None]),
            M_fade,
            (
                (state["M"]["running"]["W2"][:, None], state["M"]["running"]["W1"][:, None]),
                (state["M"]["committed"]["W2"][:, None], state["M"]["committed"]["W1"][:, None]),
                (),
            ),
        )
        y = M_held.reads[0].squeeze(2)
        new["M"] = {
            "running": {"W2": M_held.running[0].squeeze(1), "W1": M_held.running[1].squeeze(1)},
            "committed": {"W2": M_held.committed[0].squeeze(1), "W1": M_held.committed[1].squeeze(1)},
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
