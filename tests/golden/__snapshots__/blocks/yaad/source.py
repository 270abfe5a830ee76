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
from nldsl.runtime.ops import conv, l2norm, layernorm, linear, lt, merge, norm, split, where
from torch import Tensor
from torch.nn import functional


def miras_mlp_live_kept(
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


def miras_mlp_live_pullback(
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
    mul_11 = add_2 * W1.back(mul_10)
    add_4 = d_1 + W2.back(mul_11)
    mul_12 = d_1 * mul_7
    return add_4, mul_11, key, mul_10, gelu, mul_12, None, d_1, None


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
    sign = torch.sign(sub_2)
    abs = torch.abs(sub_2)
    lt_ = lt(abs, 1.0)
    where_ = where(lt_, 0.0, 1.0)
    mul_6 = sign * where_
    where_2 = where(lt_, 1.0, 0.0)
    mul_7 = sub_2 * where_2
    add_5 = mul_6 + mul_7
    mul_8 = M_out_layernorm_weight * add_5
    mean_3 = mul_8.mean(-1, keepdim=True)
    sub_3 = mul_8 - mean_3
    mul_9 = sub * pow_3
    mul_10 = mul_9 * mul_8
    mean_4 = mul_10.mean(-1, keepdim=True)
    mul_11 = mul_9 * mean_4
    sub_4 = sub_3 - mul_11
    mul_12 = pow_3 * sub_4
    matmul_3 = mul_12 @ W1
    mul_13 = add_2 * matmul_3
    return (
        key,
        mul_13,
        gelu,
        mul_12,
        matmul,
        gelu,
        matmul_2,
        mean,
        mean_2,
        layernorm_,
        mean_3,
        mean_4,
        mul_12,
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
    """From gradients `d_i` at its results to those at key, target, then `dy, x` of every outer product of
    the gradient of every weight.
    """
    add = key + layernorm_
    sub = add - target
    abs = torch.abs(sub)
    lt_ = lt(abs, 1.0)
    where_ = where(lt_, 1.0, 0.0)
    sub_2 = matmul_2 - mean
    add_2 = 1e-05 + mean_2
    pow_2 = add_2**-0.5
    mul_2 = 0.7071067811865476 * matmul
    erf = torch.erf(mul_2)
    add_3 = 1.0 + erf
    mul_3 = 0.5 * add_3
    pow_3 = matmul**2.0
    mul_4 = -0.5 * pow_3
    exp = torch.exp(mul_4)
    mul_5 = matmul * exp
    mul_6 = 0.3989422804014327 * mul_5
    add_4 = mul_3 + mul_6
    mul_7 = d_2 * add_4
    add_5 = torch.baddbmm(d_4, mul_7, W1.mT)
    sum = add_5.sum(-1, keepdim=True)
    mul_8 = pow_2 * sum
    mul_9 = -0.0625 * mul_8
    mul_10 = pow_2 * add_5
    mul_11 = sub_2 * pow_2
    dot = (mul_11 * mul_10).sum(-1, keepdim=True)
    mul_12 = mul_11 * dot
    mul_13 = -0.0625 * mul_12
    add_6 = mul_10 + mul_13
    add_7 = mul_9 + add_6
    mul_14 = M_out_layernorm_weight * add_7
    mul_15 = where_ * mul_14
    add_8 = d_1 + mul_15
    mul_16 = -0.5000000000000001 * pow_3
    exp_2 = torch.exp(mul_16)
    sign = torch.sign(sub)
    where_2 = where(lt_, 0.0, 1.0)
    mul_17 = sign * where_2
    mul_18 = sub * where_
    add_9 = mul_17 + mul_18
    mul_19 = M_out_layernorm_weight * add_9
    sub_3 = mul_19 - mean_3
    mul_21 = mul_11 * mean_4
    sub_4 = sub_3 - mul_21
    mul_22 = d_2 * matmul_3
    mul_23 = exp_2 * mul_22
    mul_24 = 0.3989422804014327 * mul_23
    mul_25 = matmul * mul_22
    mul_26 = exp * mul_25
    mul_27 = matmul * mul_26
    mul_28 = -0.3989422804014327 * mul_27
    mul_29 = exp * mul_22
    mul_30 = 0.3989422804014327 * mul_29
    mul_31 = dot * mul_19
    mul_32 = -0.0625 * mul_31
    mul_33 = mul_10 * mean_4
    sub_5 = mul_32 - mul_33
    mul_34 = pow_2 * sub_5
    pow_4 = add_2**-1.5
    dot_2 = (sub_2 * sub_5).sum(-1, keepdim=True)
    dot_3 = (add_5 * sub_4).sum(-1, keepdim=True)
    add_10 = dot_2 + dot_3
    mul_35 = pow_4 * add_10
    mul_36 = sub_2 * mul_35
    mul_37 = -0.0625 * mul_36
    add_11 = mul_34 + mul_37
    sum_2 = add_11.sum(-1, keepdim=True)
    mul_38 = -0.0625 * sum_2
    mul_39 = M_out_layernorm_weight * mul_15
    mean_5 = mul_39.mean(-1, keepdim=True)
    sub_6 = mul_39 - mean_5
    mul_40 = mul_11 * mul_39
    mean_6 = mul_40.mean(-1, keepdim=True)
    mul_41 = mul_11 * mean_6
    sub_7 = sub_6 - mul_41
    mul_42 = pow_2 * sub_7
    add_12 = add_11 + mul_42
    add_13 = mul_38 + add_12
    add_14 = torch.baddbmm(d_3, add_13, W1)
    mul_43 = add_4 * add_14
    add_15 = mul_30 + mul_43
    add_16 = mul_28 + add_15
    add_17 = mul_24 + add_16
    add_18 = torch.baddbmm(add_8, add_17, W2)
    mul_44 = add_9 * add_7
    mul_45 = mul_11 * mul_15
    add_19 = mul_44 + mul_45
    return add_18, -mul_15, add_17, key, mul, mul_7, add_13, gelu, add_19, None, mul_15, None


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
        q_conv, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
        )
        q = l2norm(split(functional.silu(q_conv), n=2), eps=1e-06)
        k_conv, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
        )
        k = l2norm(split(functional.silu(k_conv), n=2), eps=1e-06)
        v_conv, new["v.conv"] = conv(
            linear(x, self.v.linear.weight),
            self.v.conv.weight,
            self.v.conv.bias,
            state=state["v.conv"],
            mask=mask,
        )
        v = functional.silu(v_conv)
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
                Pulled(miras_mlp_live_kept, miras_mlp_live_pullback, 1, (1, 1, 1, 1)),
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
            merge(norm(out_M, self.out.norm.weight, eps=1e-06))
            * functional.silu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `yaad`, its parameters drawn from `seed`."""
    return Layer(Yaad().initialise(seed), "yaad")
