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
from nldsl.runtime.ops import gelu_pullback, layernorm
from torch import Tensor
from torch.nn import functional


def miras_mlp_kept(
    key: Tensor, W2: Tensor, W1: Tensor, M_out_layernorm_weight: Tensor, M_out_layernorm_bias: Tensor
) -> tuple[Tensor, ...]:
    """`miras_mlp`, row by row, and what its way back needs."""
    matmul = key @ W2.mT
    gelu = functional.gelu(matmul)
    matmul_2 = gelu @ W1.mT
    layernorm_ = layernorm(matmul_2, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    add = key + layernorm_
    return add, matmul, matmul_2


def miras_mlp_pullback(
    d_1: Tensor,
    key: Tensor,
    W2: Tensor,
    W1: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
    matmul: Tensor,
    matmul_2: Tensor,
) -> tuple[Any, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight.
    """
    gelu = functional.gelu(matmul)
    mean = matmul_2.mean(-1, keepdim=True)
    sub = matmul_2 - mean
    pow = sub**2.0
    mean_2 = pow.mean(-1, keepdim=True)
    add = 1e-05 + mean_2
    pow_2 = add**-0.5
    mul = M_out_layernorm_weight * d_1
    mean_3 = mul.mean(-1, keepdim=True)
    sub_2 = mul - mean_3
    mul_2 = sub.mul_(pow_2)
    mul_3 = mul.mul_(mul_2)
    mean_4 = mul_3.mean(-1, keepdim=True)
    mul_4 = mul_2 * mean_4
    sub_3 = sub_2.sub_(mul_4)
    mul_5 = sub_3.mul_(pow_2)
    gelu_pullback_ = gelu_pullback(mul_5 @ W1, matmul)
    add_2 = torch.baddbmm(d_1, gelu_pullback_, W2)
    mul_6 = mul_2.mul_(d_1)
    return add_2, gelu_pullback_, key, mul_5, gelu, mul_6, None, d_1, None


def miras_mlp_l2_gradient_kept(
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    W1: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
) -> tuple[Tensor, ...]:
    """`miras_mlp_l2_gradient`, row by row, and what its way back needs."""
    matmul = key @ W2.mT
    gelu = functional.gelu(matmul)
    matmul_2 = gelu @ W1.mT
    mean = matmul_2.mean(-1, keepdim=True)
    sub = matmul_2 - mean
    pow = sub**2.0
    mean_2 = pow.mean(-1, keepdim=True)
    add = 1e-05 + mean_2
    pow_2 = add**-0.5
    layernorm_ = layernorm(matmul_2, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    add_2 = key + layernorm_
    sub_2 = add_2.sub_(target)
    mul = sub_2.mul_(M_out_layernorm_weight)
    mean_3 = mul.mean(-1, keepdim=True)
    sub_3 = mul - mean_3
    mul_2 = sub.mul_(pow_2)
    mul_3 = mul.mul_(mul_2)
    mean_4 = mul_3.mean(-1, keepdim=True)
    mul_4 = mul_2.mul_(mean_4)
    sub_4 = sub_3.sub_(mul_4)
    mul_5 = sub_4.mul_(pow_2)
    matmul_3 = mul_5 @ W1
    gelu_pullback_ = gelu_pullback(matmul_3, matmul)
    return (
        key,
        gelu_pullback_,
        gelu,
        mul_5,
        matmul,
        gelu,
        matmul_2,
        mean,
        mean_2,
        layernorm_,
        mean_3,
        mean_4,
        mul_5,
        matmul_3,
    )


def miras_mlp_l2_gradient_pullback(
    d_1: Tensor,
    d_2: Tensor,
    d_3: Tensor,
    d_4: Tensor,
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    W1: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
    matmul: Tensor,
    gelu: Tensor,
    matmul_2: Tensor,
    mean: Tensor,
    mean_2: Tensor,
    layernorm_: Tensor,
    mean_3: Tensor,
    mean_4: Tensor,
    mul: Tensor,
    matmul_3: Tensor,
) -> tuple[Any, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, then `dy, x`
    of every outer product of the gradient of every weight.
    """
    gelu_pullback_ = gelu_pullback(d_2, matmul)
    add = d_4.baddbmm_(gelu_pullback_, W1.mT)
    sum = add.sum(-1, keepdim=True)
    sub = matmul_2 - mean
    add_2 = 1e-05 + mean_2
    pow_2 = add_2**-0.5
    mul_2 = sum * pow_2
    mul_3 = mul_2.mul_(-0.125)
    mul_4 = add * pow_2
    mul_5 = sub * pow_2
    dot = (mul_5 * mul_4).sum(-1, keepdim=True)
    mul_6 = mul_5 * dot
    mul_7 = mul_6.mul_(-0.125)
    add_3 = mul_7.add_(mul_4)
    add_4 = add_3.add_(mul_3)
    mul_8 = M_out_layernorm_weight * add_4
    add_5 = d_1.add_(mul_8)
    pow_3 = matmul**2.0
    sub_2 = 2.0 - pow_3
    mul_9 = pow_3.mul_(-0.5)
    exp = torch.exp(mul_9)
    mul_10 = sub_2.mul_(exp)
    add_6 = key + layernorm_
    sub_3 = add_6.sub_(target)
    mul_11 = M_out_layernorm_weight * sub_3
    sub_4 = mul_11 - mean_3
    mul_13 = mul_5 * mean_4
    sub_5 = sub_4.sub_(mul_13)
    mul_14 = d_2.mul_(matmul_3)
    mul_15 = mul_10.mul_(mul_14)
    mul_16 = mul_15.mul_(0.3989422804014327)
    mul_17 = mul_11 * dot
    mul_18 = mul_17.mul_(-0.125)
    mul_19 = mul_4.mul_(mean_4)
    sub_6 = mul_18.sub_(mul_19)
    mul_20 = pow_2 * sub_6
    pow_4 = add_2**-1.5
    dot_2 = (add * sub_5).sum(-1, keepdim=True)
    dot_3 = (sub * sub_6).sum(-1, keepdim=True)
    add_7 = dot_2 + dot_3
    mul_21 = pow_4.mul_(add_7)
    mul_22 = sub.mul_(mul_21)
    mul_23 = mul_22.mul_(-0.125)
    add_8 = mul_20.add_(mul_23)
    sum_2 = add_8.sum(-1, keepdim=True)
    mul_24 = -0.125 * sum_2
    mul_25 = M_out_layernorm_weight * mul_8
    mean_5 = mul_25.mean(-1, keepdim=True)
    sub_7 = mul_25 - mean_5
    mul_26 = mul_25.mul_(mul_5)
    mean_6 = mul_26.mean(-1, keepdim=True)
    mul_27 = mul_5 * mean_6
    sub_8 = sub_7.sub_(mul_27)
    mul_28 = sub_8.mul_(pow_2)
    add_9 = add_8.add_(mul_28)
    add_10 = add_9.add_(mul_24)
    add_11 = d_3.baddbmm_(add_10, W1)
    gelu_pullback_2 = gelu_pullback(add_11, matmul)
    add_12 = mul_16.add_(gelu_pullback_2)
    add_13 = add_5.baddbmm_(add_12, W2)
    mul_29 = sub_3.mul_(add_4)
    mul_30 = mul_5.mul_(mul_8)
    add_14 = mul_29.add_(mul_30)
    return add_13, -mul_8, add_12, key, mul, gelu_pullback_, add_10, gelu, add_14, None, mul_8, None


class Probe(Module):
    """`probe(x)`.

    M: held (reads and gradients see the last commit: 16 tokens are parallel, and all chunks are one
    function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("M.W2", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.W1", (8, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.out.layernorm.weight", (8,), "norm", constant(1.0))
        self.declare("M.out.layernorm.bias", (8,), "norm", constant(0.0))

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
                Pulled(miras_mlp_kept, miras_mlp_pullback, 1, (1, 1, 1, 1)),
                Pulled(miras_mlp_l2_gradient_kept, miras_mlp_l2_gradient_pullback, 4, (1, 2, 1, 1)),
            ),
            ((x[:, :, None],), x[:, :, None], x[:, :, None]),
            M_fade,
            (
                (state["M"]["running"]["W2"][:, None], state["M"]["running"]["W1"][:, None]),
                (state["M"]["committed"]["W2"][:, None], state["M"]["committed"]["W1"][:, None]),
                (),
            ),
            shared=(self.M.out.layernorm.weight, self.M.out.layernorm.bias),
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
