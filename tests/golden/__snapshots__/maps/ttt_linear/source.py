"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import layernorm
from torch import Tensor


def ttt_linear_kept(
    key: Tensor, W: Tensor, b: Tensor, M_out_layernorm_weight: Tensor, M_out_layernorm_bias: Tensor
) -> tuple[Tensor, ...]:
    """`ttt_linear`, row by row, and what its way back needs."""
    matmul = key @ W.mT
    add = b + matmul
    layernorm_ = layernorm(add, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    add_2 = key + layernorm_
    return add_2, matmul


def ttt_linear_pullback(
    d_1: Tensor,
    key: Tensor,
    W: Tensor,
    b: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
    matmul: Tensor,
) -> tuple[Any, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight.
    """
    add = b + matmul
    mean = add.mean(-1, keepdim=True)
    sub = add.sub_(mean)
    pow = sub**2.0
    mean_2 = pow.mean(-1, keepdim=True)
    add_2 = 1e-05 + mean_2
    pow_2 = add_2**-0.5
    mul = M_out_layernorm_weight * d_1
    mean_3 = mul.mean(-1, keepdim=True)
    sub_2 = mul - mean_3
    mul_2 = sub.mul_(pow_2)
    mul_3 = mul.mul_(mul_2)
    mean_4 = mul_3.mean(-1, keepdim=True)
    mul_4 = mul_2 * mean_4
    sub_3 = sub_2.sub_(mul_4)
    mul_5 = sub_3.mul_(pow_2)
    add_3 = torch.baddbmm(d_1, mul_5, W)
    mul_6 = mul_2.mul_(d_1)
    return add_3, mul_5, key, mul_5, None, mul_6, None, d_1, None


def ttt_linear_l2_gradient_kept(
    key: Tensor,
    target: Tensor,
    W: Tensor,
    b: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
) -> tuple[Tensor, ...]:
    """`ttt_linear_l2_gradient`, row by row, and what its way back needs."""
    matmul = key @ W.mT
    add = b + matmul
    mean = add.mean(-1, keepdim=True)
    sub = add - mean
    pow = sub**2.0
    mean_2 = pow.mean(-1, keepdim=True)
    add_2 = 1e-05 + mean_2
    pow_2 = add_2**-0.5
    layernorm_ = layernorm(add, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    add_3 = key + layernorm_
    sub_2 = add_3.sub_(target)
    mul = sub_2.mul_(M_out_layernorm_weight)
    mean_3 = mul.mean(-1, keepdim=True)
    sub_3 = mul - mean_3
    mul_2 = sub.mul_(pow_2)
    mul_3 = mul.mul_(mul_2)
    mean_4 = mul_3.mean(-1, keepdim=True)
    mul_4 = mul_2.mul_(mean_4)
    sub_4 = sub_3.sub_(mul_4)
    mul_5 = sub_4.mul_(pow_2)
    return key, mul_5, mul_5, matmul, mean, mean_2, layernorm_, mean_3, mean_4


def ttt_linear_l2_gradient_pullback(
    d_1: Tensor,
    d_2: Tensor,
    d_3: Tensor,
    key: Tensor,
    target: Tensor,
    W: Tensor,
    b: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
    matmul: Tensor,
    mean: Tensor,
    mean_2: Tensor,
    layernorm_: Tensor,
    mean_3: Tensor,
    mean_4: Tensor,
) -> tuple[Any, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, then `dy, x`
    of every outer product of the gradient of every weight.
    """
    add = d_2.add_(d_3)
    sum = add.sum(-1, keepdim=True)
    add_2 = b + matmul
    sub = add_2 - mean
    add_3 = 1e-05 + mean_2
    pow_2 = add_3**-0.5
    mul = sum * pow_2
    mul_2 = mul.mul_(-0.125)
    mul_3 = add * pow_2
    mul_4 = sub * pow_2
    dot = (mul_3 * mul_4).sum(-1, keepdim=True)
    mul_5 = mul_4 * dot
    mul_6 = mul_5.mul_(-0.125)
    add_4 = mul_6.add_(mul_3)
    add_5 = add_4.add_(mul_2)
    mul_7 = M_out_layernorm_weight * add_5
    add_6 = d_1.add_(mul_7)
    add_7 = key + layernorm_
    sub_2 = add_7.sub_(target)
    mul_8 = M_out_layernorm_weight * sub_2
    mul_9 = mul_8 * dot
    mul_10 = mul_9.mul_(-0.125)
    mul_12 = mul_3.mul_(mean_4)
    sub_3 = mul_10.sub_(mul_12)
    mul_13 = pow_2 * sub_3
    pow_3 = add_3**-1.5
    sub_4 = mul_8 - mean_3
    mul_14 = mul_4 * mean_4
    sub_5 = sub_4.sub_(mul_14)
    dot_2 = (add * sub_5).sum(-1, keepdim=True)
    dot_3 = (sub * sub_3).sum(-1, keepdim=True)
    add_8 = dot_2 + dot_3
    mul_15 = pow_3.mul_(add_8)
    mul_16 = sub.mul_(mul_15)
    mul_17 = mul_16.mul_(-0.125)
    add_9 = mul_13.add_(mul_17)
    sum_2 = add_9.sum(-1, keepdim=True)
    mul_18 = -0.125 * sum_2
    mul_19 = M_out_layernorm_weight * mul_7
    mean_5 = mul_19.mean(-1, keepdim=True)
    sub_6 = mul_19 - mean_5
    mul_20 = mul_19.mul_(mul_4)
    mean_6 = mul_20.mean(-1, keepdim=True)
    mul_21 = mul_4 * mean_6
    sub_7 = sub_6.sub_(mul_21)
    mul_22 = sub_7.mul_(pow_2)
    add_10 = add_9.add_(mul_22)
    add_11 = add_10.add_(mul_18)
    add_12 = add_6.baddbmm_(add_11, W)
    mul_23 = sub_2.mul_(add_5)
    mul_24 = mul_4.mul_(mul_7)
    add_13 = mul_23.add_(mul_24)
    return add_12, -mul_7, add_11, key, add_11, None, add_13, None, mul_7, None


class Probe(Module):
    """`probe(x)`.

    M: held (reads and gradients see the last commit: 16 tokens are parallel, and all chunks are one
    function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("M.W", (8, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.b", (8,), "rest", normal(0.3535533905932738))
        self.declare("M.out.layernorm.weight", (8,), "norm", constant(1.0))
        self.declare("M.out.layernorm.bias", (8,), "norm", constant(0.0))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "committed": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
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
                Pulled(ttt_linear_kept, ttt_linear_pullback, 1, (1, 1, 1, 1)),
                Pulled(ttt_linear_l2_gradient_kept, ttt_linear_l2_gradient_pullback, 3, (1, 1, 1, 1)),
            ),
            ((x[:, :, None],), x[:, :, None], x[:, :, None]),
            M_fade,
            (
                (state["M"]["running"]["W"][:, None], state["M"]["running"]["b"].unsqueeze(-2)[:, None]),
                (state["M"]["committed"]["W"][:, None], state["M"]["committed"]["b"].unsqueeze(-2)[:, None]),
                (),
            ),
            biases=(1,),
            shared=(self.M.out.layernorm.weight, self.M.out.layernorm.bias),
        )
        y = M_held.reads[0].squeeze(2)
        new["M"] = {
            "running": {"W": M_held.running[0].squeeze(1), "b": M_held.running[1].squeeze(1).squeeze(-2)},
            "committed": {
                "W": M_held.committed[0].squeeze(1),
                "b": M_held.committed[1].squeeze(1).squeeze(-2),
            },
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
