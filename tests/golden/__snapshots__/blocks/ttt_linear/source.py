"""`ttt_linear`, compiled by nldsl from specs/blocks/ttt_linear.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading, following
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, layernorm, linear, merge, split
from torch import Tensor
from torch.nn import functional


def ttt_linear_following(
    key: Tensor, W: Any, b: Tensor, M_out_layernorm_weight: Tensor, M_out_layernorm_bias: Tensor
) -> tuple[Tensor, ...]:
    """`ttt_linear`, row by row, and what its way back needs, at the weights of every token: `W(z)` for `W
    @ z`, `W.back(d)` for the way back.
    """
    matmul = W(key)
    add = b + matmul
    layernorm_ = layernorm(add, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    add_2 = key + layernorm_
    return add_2, matmul


def ttt_linear_following_back(
    d_1: Tensor,
    key: Tensor,
    W: Any,
    b: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
    matmul: Tensor,
) -> tuple[Any, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight, at the weights of every token: `W(z)` for `W @ z`, `W.back(d)` for the way
    back.
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
    add_3 = d_1 + W.back(mul_5)
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
    mul_2 = mul.mul_(-0.0625)
    mul_3 = add * pow_2
    mul_4 = sub * pow_2
    dot = (mul_4 * mul_3).sum(-1, keepdim=True)
    mul_5 = mul_4 * dot
    mul_6 = mul_5.mul_(-0.0625)
    add_4 = mul_6.add_(mul_3)
    add_5 = add_4.add_(mul_2)
    mul_7 = M_out_layernorm_weight * add_5
    add_6 = d_1.add_(mul_7)
    add_7 = key + layernorm_
    sub_2 = add_7.sub_(target)
    mul_8 = M_out_layernorm_weight * sub_2
    mul_9 = mul_8 * dot
    mul_10 = mul_9.mul_(-0.0625)
    mul_12 = mul_3.mul_(mean_4)
    sub_3 = mul_10.sub_(mul_12)
    mul_13 = pow_2 * sub_3
    pow_3 = add_3**-1.5
    dot_2 = (sub * sub_3).sum(-1, keepdim=True)
    sub_4 = mul_8 - mean_3
    mul_14 = mul_4 * mean_4
    sub_5 = sub_4.sub_(mul_14)
    dot_3 = (add * sub_5).sum(-1, keepdim=True)
    add_8 = dot_2 + dot_3
    mul_15 = pow_3.mul_(add_8)
    mul_16 = sub.mul_(mul_15)
    mul_17 = mul_16.mul_(-0.0625)
    add_9 = mul_13.add_(mul_17)
    sum_2 = add_9.sum(-1, keepdim=True)
    mul_18 = -0.0625 * sum_2
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


class TttLinear(Module):
    """`ttt_linear(x)` with batch = 16, heads = 2, rate = 1, window = 4.

    M: held (gradients are held at a base, reads of `M` follow: 16 tokens are parallel, and all chunks
    are one function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("u.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.layernorm.weight", (32,), "norm", constant(1.0))
        self.declare("out.layernorm.bias", (32,), "norm", constant(0.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W", (2, 16, 16), "matrix", normal(0.25))
        self.declare("M.b", (2, 16), "rest", normal(0.25))
        self.declare("M.out.layernorm.weight", (16,), "norm", constant(1.0))
        self.declare("M.out.layernorm.bias", (16,), "norm", constant(0.0))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "base": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        u = linear(x, self.u.linear.weight)
        q_conv, new["q.conv"] = conv(
            u, self.q.conv.weight, self.q.conv.bias, state=state["q.conv"], mask=mask
        )
        q = split(q_conv, n=2)
        k_conv, new["k.conv"] = conv(
            u, self.k.conv.weight, self.k.conv.bias, state=state["k.conv"], mask=mask
        )
        k = split(k_conv, n=2)
        v = linear(x, self.v.linear.weight)
        eta = 1 * torch.sigmoid(linear(x, self.eta.linear.weight, self.eta.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        M_fade = fading(grid, k, rate=eta)
        M_after = following(grid, k, rate=eta)
        M_held = held_pass(
            grid,
            16,
            (
                Pulled(ttt_linear_following, ttt_linear_following_back, 1, (1, 1, 1, 1)),
                Pulled(ttt_linear_l2_gradient_kept, ttt_linear_l2_gradient_pullback, 3, (1, 1, 1, 1)),
            ),
            ((q,), k, M_write_split),
            M_fade,
            (
                (state["M"]["running"]["W"], state["M"]["running"]["b"].unsqueeze(-2)),
                (state["M"]["base"]["W"], state["M"]["base"]["b"].unsqueeze(-2)),
                (),
            ),
            biases=(1,),
            shared=(self.M.out.layernorm.weight, self.M.out.layernorm.bias),
            live=(M_after,),
        )
        out_M = M_held.reads[0]
        new["M"] = {
            "running": {"W": M_held.running[0], "b": M_held.running[1].squeeze(-2)},
            "base": {"W": M_held.committed[0], "b": M_held.committed[1].squeeze(-2)},
            "count": grid.count,
        }
        out = linear(
            layernorm(merge(out_M), self.out.layernorm.weight, self.out.layernorm.bias, eps=1e-05)
            * functional.gelu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `ttt_linear`, its parameters drawn from `seed`."""
    return Layer(TttLinear().initialise(seed), "ttt_linear")
