"""`yaad`, compiled by nldsl from specs/blocks/yaad.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading, following
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import (
    conv,
    gelu_pullback,
    l2norm,
    layernorm,
    linear,
    lt,
    merge,
    norm,
    split,
    times_silu,
    where,
)
from torch import Tensor
from torch.nn import functional


def miras_mlp_following(
    key: Tensor, W2: Any, W1: Any, M_out_layernorm_weight: Tensor, M_out_layernorm_bias: Tensor
) -> tuple[Tensor, ...]:
    """`miras_mlp`, row by row, and what its way back needs, at the weights of every token: `W(z)` for `W @
    z`, `W.back(d)` for the way back.
    """
    matmul = W2(key)
    gelu = functional.gelu(matmul)
    matmul_2 = W1(gelu)
    layernorm_ = layernorm(matmul_2, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    add = key + layernorm_
    return add, matmul, matmul_2


def miras_mlp_following_back(
    d_1: Tensor,
    key: Tensor,
    W2: Any,
    W1: Any,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
    matmul: Tensor,
    matmul_2: Tensor,
) -> tuple[Any, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight, at the weights of every token: `W(z)` for `W @ z`, `W.back(d)` for the way
    back.
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
    gelu_pullback_ = gelu_pullback(W1.back(mul_5), matmul)
    add_2 = d_1 + W2.back(gelu_pullback_)
    mul_6 = mul_2.mul_(d_1)
    return add_2, gelu_pullback_, key, mul_5, gelu, mul_6, None, d_1, None


def miras_mlp_huber_gradient_kept(
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    W1: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
) -> tuple[Tensor, ...]:
    """`miras_mlp_huber_gradient`, row by row, and what its way back needs."""
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
    sign = torch.sign(sub_2)
    abs = torch.abs(sub_2)
    lt_ = lt(abs, 1.0)
    where_ = where(lt_, 0.0, 1.0)
    mul = sign * where_
    where_2 = where(lt_, 1.0, 0.0)
    mul_2 = sub_2.mul_(where_2)
    add_3 = mul.add_(mul_2)
    mul_3 = add_3.mul_(M_out_layernorm_weight)
    mean_3 = mul_3.mean(-1, keepdim=True)
    sub_3 = mul_3 - mean_3
    mul_4 = sub.mul_(pow_2)
    mul_5 = mul_3.mul_(mul_4)
    mean_4 = mul_5.mean(-1, keepdim=True)
    mul_6 = mul_4.mul_(mean_4)
    sub_4 = sub_3.sub_(mul_6)
    mul_7 = sub_4.mul_(pow_2)
    matmul_3 = mul_7 @ W1
    gelu_pullback_ = gelu_pullback(matmul_3, matmul)
    return (
        key,
        gelu_pullback_,
        gelu,
        mul_7,
        matmul,
        gelu,
        matmul_2,
        mean,
        mean_2,
        layernorm_,
        mean_3,
        mean_4,
        mul_7,
        matmul_3,
    )


def miras_mlp_huber_gradient_pullback(
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
    add = key + layernorm_
    sub = add.sub_(target)
    abs = torch.abs(sub)
    lt_ = lt(abs, 1.0)
    where_ = where(lt_, 1.0, 0.0)
    gelu_pullback_ = gelu_pullback(d_2, matmul)
    add_2 = d_4.baddbmm_(gelu_pullback_, W1.mT)
    sum = add_2.sum(-1, keepdim=True)
    sub_2 = matmul_2 - mean
    add_3 = 1e-05 + mean_2
    pow_2 = add_3**-0.5
    mul_2 = sum * pow_2
    mul_3 = mul_2.mul_(-0.0625)
    mul_4 = add_2 * pow_2
    mul_5 = sub_2 * pow_2
    dot = (mul_4 * mul_5).sum(-1, keepdim=True)
    mul_6 = mul_5 * dot
    mul_7 = mul_6.mul_(-0.0625)
    add_4 = mul_7.add_(mul_4)
    add_5 = add_4.add_(mul_3)
    mul_8 = M_out_layernorm_weight * add_5
    mul_9 = mul_8.mul_(where_)
    add_6 = d_1.add_(mul_9)
    pow_3 = matmul**2.0
    sub_3 = 2.0 - pow_3
    mul_10 = pow_3.mul_(-0.5)
    exp = torch.exp(mul_10)
    mul_11 = sub_3.mul_(exp)
    sign = torch.sign(sub)
    where_2 = where(lt_, 0.0, 1.0)
    mul_12 = sign * where_2
    mul_13 = sub.mul_(where_)
    add_7 = mul_12.add_(mul_13)
    mul_14 = M_out_layernorm_weight * add_7
    sub_4 = mul_14 - mean_3
    mul_16 = mul_5 * mean_4
    sub_5 = sub_4.sub_(mul_16)
    mul_17 = d_2.mul_(matmul_3)
    mul_18 = mul_11.mul_(mul_17)
    mul_19 = mul_18.mul_(0.3989422804014327)
    mul_20 = dot * mul_14
    mul_21 = mul_20.mul_(-0.0625)
    mul_22 = mul_4.mul_(mean_4)
    sub_6 = mul_21.sub_(mul_22)
    mul_23 = pow_2 * sub_6
    pow_4 = add_3**-1.5
    dot_2 = (sub_2 * sub_6).sum(-1, keepdim=True)
    dot_3 = (add_2 * sub_5).sum(-1, keepdim=True)
    add_8 = dot_2 + dot_3
    mul_24 = pow_4.mul_(add_8)
    mul_25 = sub_2.mul_(mul_24)
    mul_26 = mul_25.mul_(-0.0625)
    add_9 = mul_23.add_(mul_26)
    mul_27 = M_out_layernorm_weight * mul_9
    mean_5 = mul_27.mean(-1, keepdim=True)
    sub_7 = mul_27 - mean_5
    mul_28 = mul_27.mul_(mul_5)
    mean_6 = mul_28.mean(-1, keepdim=True)
    mul_29 = mul_5 * mean_6
    sub_8 = sub_7.sub_(mul_29)
    mul_30 = sub_8.mul_(pow_2)
    add_10 = mul_30.add_(add_9)
    sum_2 = add_9.sum(-1, keepdim=True)
    mul_31 = -0.0625 * sum_2
    add_11 = add_10.add_(mul_31)
    add_12 = d_3.baddbmm_(add_11, W1)
    gelu_pullback_2 = gelu_pullback(add_12, matmul)
    add_13 = mul_19.add_(gelu_pullback_2)
    add_14 = add_6.baddbmm_(add_13, W2)
    mul_32 = add_7.mul_(add_5)
    mul_33 = mul_5.mul_(mul_9)
    add_15 = mul_32.add_(mul_33)
    return add_14, -mul_9, add_13, key, mul, gelu_pullback_, add_11, gelu, add_15, None, mul_9, None


class Yaad(Module):
    """`yaad(x)` with chunk = 16, delta = 1, expand = 2, heads = 2, window = 4.

    M: held (gradients are held at a base, reads of `M` follow: 16 tokens are parallel, and all chunks
    are one function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v.conv.bias", (32,), "rest", constant(0.0))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 32, 16), "matrix", normal(0.25))
        self.declare("M.W1", (2, 16, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.out.layernorm.weight", (16,), "norm", constant(1.0))
        self.declare("M.out.layernorm.bias", (16,), "norm", constant(0.0))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "base": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q_conv_silu, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
            activation="silu",
        )
        q = l2norm(split(q_conv_silu, n=2), eps=1e-06)
        k_conv_silu, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
            activation="silu",
        )
        k = l2norm(split(k_conv_silu, n=2), eps=1e-06)
        v_conv_silu, new["v.conv"] = conv(
            linear(x, self.v.linear.weight),
            self.v.conv.weight,
            self.v.conv.bias,
            state=state["v.conv"],
            mask=mask,
            activation="silu",
        )
        v = v_conv_silu
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 16
        alpha = 1 - torch.sigmoid(linear(x, self.alpha.linear.weight, self.alpha.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        M_fade = fading(grid, k, retain=alpha, rate=eta)
        M_after = following(grid, k, retain=alpha, rate=eta)
        M_held = held_pass(
            grid,
            16,
            (
                Pulled(miras_mlp_following, miras_mlp_following_back, 1, (1, 1, 1, 1)),
                Pulled(miras_mlp_huber_gradient_kept, miras_mlp_huber_gradient_pullback, 4, (1, 2, 1, 1)),
            ),
            ((q,), k, M_write_split),
            M_fade,
            (
                (state["M"]["running"]["W2"], state["M"]["running"]["W1"]),
                (state["M"]["base"]["W2"], state["M"]["base"]["W1"]),
                (),
            ),
            shared=(self.M.out.layernorm.weight, self.M.out.layernorm.bias),
            live=(M_after,),
        )
        out_M = M_held.reads[0]
        new["M"] = {
            "running": {"W2": M_held.running[0], "W1": M_held.running[1]},
            "base": {"W2": M_held.committed[0], "W1": M_held.committed[1]},
            "count": grid.count,
        }
        out = linear(
            times_silu(
                merge(norm(out_M, self.out.norm.weight, eps=1e-06)), linear(x, self.out.linear.weight)
            ),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `yaad`, its parameters drawn from `seed`."""
    return Layer(Yaad().initialise(seed), "yaad")
