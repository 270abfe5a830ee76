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
    mul = 0.7071067811865476 * matmul
    erf = torch.erf(mul)
    add = 1.0 + erf
    mul_2 = 0.5 * add
    pow = matmul**2.0
    mul_3 = -0.5 * pow
    exp = torch.exp(mul_3)
    mul_4 = matmul * exp
    mul_5 = 0.3989422804014327 * mul_4
    add_2 = mul_2 + mul_5
    gelu = functional.gelu(matmul)
    mean = matmul_2.mean(-1, keepdim=True)
    sub = matmul_2 - mean
    pow_2 = sub**2.0
    mean_2 = pow_2.mean(-1, keepdim=True)
    add_3 = 1e-05 + mean_2
    pow_3 = add_3**-0.5
    mul_6 = M_out_layernorm_weight * d_1
    mean_3 = mul_6.mean(-1, keepdim=True)
    sub_2 = mul_6 - mean_3
    mul_7 = sub * pow_3
    mul_8 = mul_6 * mul_7
    mean_4 = mul_8.mean(-1, keepdim=True)
    mul_9 = mul_7 * mean_4
    sub_3 = sub_2 - mul_9
    mul_10 = pow_3 * sub_3
    mul_11 = add_2 * (mul_10 @ W1)
    add_4 = torch.baddbmm(d_1, mul_11, W2)
    mul_12 = d_1 * mul_7
    return add_4, mul_11, key, mul_10, gelu, mul_12, None, d_1, None


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
    mul = 0.7071067811865476 * matmul
    erf = torch.erf(mul)
    add = 1.0 + erf
    mul_2 = 0.5 * add
    pow = matmul**2.0
    mul_3 = -0.5 * pow
    exp = torch.exp(mul_3)
    mul_4 = matmul * exp
    mul_5 = 0.3989422804014327 * mul_4
    add_2 = mul_2 + mul_5
    gelu = functional.gelu(matmul)
    matmul_2 = gelu @ W1.mT
    mean = matmul_2.mean(-1, keepdim=True)
    sub = matmul_2 - mean
    pow_2 = sub**2.0
    mean_2 = pow_2.mean(-1, keepdim=True)
    add_3 = 1e-05 + mean_2
    pow_3 = add_3**-0.5
    layernorm_ = layernorm(matmul_2, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    add_4 = key + layernorm_
    sub_2 = add_4 - target
    mul_6 = M_out_layernorm_weight * sub_2
    mean_3 = mul_6.mean(-1, keepdim=True)
    sub_3 = mul_6 - mean_3
    mul_7 = sub * pow_3
    mul_8 = mul_6 * mul_7
    mean_4 = mul_8.mean(-1, keepdim=True)
    mul_9 = mul_7 * mean_4
    sub_4 = sub_3 - mul_9
    mul_10 = pow_3 * sub_4
    matmul_3 = mul_10 @ W1
    mul_11 = add_2 * matmul_3
    return (
        key,
        mul_11,
        gelu,
        mul_10,
        matmul,
        gelu,
        matmul_2,
        mean,
        mean_2,
        layernorm_,
        mean_3,
        mean_4,
        mul_10,
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
    """From gradients `d_i` at its results to those at key, target, then `dy, x` of every outer product of
    the gradient of every weight.
    """
    sub = matmul_2 - mean
    add = 1e-05 + mean_2
    pow_2 = add**-0.5
    mul_2 = 0.7071067811865476 * matmul
    erf = torch.erf(mul_2)
    add_2 = 1.0 + erf
    mul_3 = 0.5 * add_2
    pow_3 = matmul**2.0
    mul_4 = -0.5 * pow_3
    exp = torch.exp(mul_4)
    mul_5 = matmul * exp
    mul_6 = 0.3989422804014327 * mul_5
    add_3 = mul_3 + mul_6
    mul_7 = d_2 * add_3
    add_4 = torch.baddbmm(d_4, mul_7, W1.mT)
    sum = add_4.sum(-1, keepdim=True)
    mul_8 = pow_2 * sum
    mul_9 = -0.125 * mul_8
    mul_10 = pow_2 * add_4
    mul_11 = sub * pow_2
    dot = (mul_11 * mul_10).sum(-1, keepdim=True)
    mul_12 = mul_11 * dot
    mul_13 = -0.125 * mul_12
    add_5 = mul_10 + mul_13
    add_6 = mul_9 + add_5
    mul_14 = M_out_layernorm_weight * add_6
    add_7 = d_1 + mul_14
    mul_15 = -0.5000000000000001 * pow_3
    exp_2 = torch.exp(mul_15)
    add_8 = key + layernorm_
    sub_2 = add_8 - target
    mul_16 = M_out_layernorm_weight * sub_2
    sub_3 = mul_16 - mean_3
    mul_18 = mul_11 * mean_4
    sub_4 = sub_3 - mul_18
    mul_19 = d_2 * matmul_3
    mul_20 = exp_2 * mul_19
    mul_21 = 0.3989422804014327 * mul_20
    mul_22 = matmul * mul_19
    mul_23 = exp * mul_22
    mul_24 = matmul * mul_23
    mul_25 = -0.3989422804014327 * mul_24
    mul_26 = exp * mul_19
    mul_27 = 0.3989422804014327 * mul_26
    mul_28 = mul_16 * dot
    mul_29 = -0.125 * mul_28
    mul_30 = mul_10 * mean_4
    sub_5 = mul_29 - mul_30
    mul_31 = pow_2 * sub_5
    pow_4 = add**-1.5
    dot_2 = (add_4 * sub_4).sum(-1, keepdim=True)
    dot_3 = (sub * sub_5).sum(-1, keepdim=True)
    add_9 = dot_2 + dot_3
    mul_32 = pow_4 * add_9
    mul_33 = sub * mul_32
    mul_34 = -0.125 * mul_33
    add_10 = mul_31 + mul_34
    sum_2 = add_10.sum(-1, keepdim=True)
    mul_35 = -0.125 * sum_2
    mul_36 = M_out_layernorm_weight * mul_14
    mean_5 = mul_36.mean(-1, keepdim=True)
    sub_6 = mul_36 - mean_5
    mul_37 = mul_11 * mul_36
    mean_6 = mul_37.mean(-1, keepdim=True)
    mul_38 = mul_11 * mean_6
    sub_7 = sub_6 - mul_38
    mul_39 = pow_2 * sub_7
    add_11 = add_10 + mul_39
    add_12 = mul_35 + add_11
    add_13 = torch.baddbmm(d_3, add_12, W1)
    mul_40 = add_3 * add_13
    add_14 = mul_27 + mul_40
    add_15 = mul_25 + add_14
    add_16 = mul_21 + add_15
    add_17 = torch.baddbmm(add_7, add_16, W2)
    mul_41 = sub_2 * add_6
    mul_42 = mul_11 * mul_14
    add_18 = mul_41 + mul_42
    return add_17, -mul_14, add_16, key, mul, mul_7, add_12, gelu, add_18, None, mul_14, None


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
