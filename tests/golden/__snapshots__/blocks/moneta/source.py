"""`moneta`, compiled by nldsl from specs/blocks/moneta.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, eq, l2norm, layernorm, linear, merge, norm, split, where
from nldsl.runtime.token import ends_of, hold, join_tokens, live_at, next_step, tick
from torch import Tensor
from torch.nn import functional


def miras_mlp_lp_gradient(
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    W1: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `lp` at the map `miras_mlp`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    matmul = key @ W2.mT
    gelu = functional.gelu(matmul)
    matmul_2 = gelu @ W1.mT
    sub = matmul_2 - matmul_2.mean(-1, keepdim=True)
    pow = (1e-05 + (sub**2.0).mean(-1, keepdim=True)) ** -0.5
    sub_2 = key + layernorm(matmul_2, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05) - target
    mul = M_out_layernorm_weight * (torch.sign(sub_2) * torch.abs(sub_2) ** 2.0)
    mul_2 = sub * pow
    mul_3 = pow * (mul - mul.mean(-1, keepdim=True) - mul_2 * (mul * mul_2).mean(-1, keepdim=True))
    return (
        key,
        (
            0.5 * (1.0 + torch.erf(0.7071067811865476 * matmul))
            + 0.3989422804014327 * (matmul * torch.exp(-0.5 * matmul**2.0))
        )
        * (mul_3 @ W1),
        gelu,
        mul_3,
    )


def mirror_norm(
    W: Tensor, g: Tensor, step: Tensor, lr: Tensor, alpha: Tensor, A: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of the rule `mirror_norm` for one token; gates are `[..., 1, 1]`."""
    A_eq = eq(step, 1)
    A_where = where(A_eq, W, A)
    A_mul = alpha * A_where
    A_mul_1 = lr * g
    A_1 = A_mul - A_mul_1
    W_abs = torch.abs(A_1)
    W_pow = W_abs**4.0
    W_sum = W_pow.sum(-1)[..., None, :]
    W_sum_1 = W_sum.sum(-1, keepdim=True)
    W_pow_1 = W_sum_1**0.5
    W_1 = A_1 / W_pow_1
    return W_1, A_1


def miras_mlp(
    z: Tensor, W2: Tensor, W1: Tensor, M_out_layernorm_weight: Tensor, M_out_layernorm_bias: Tensor
) -> Tensor:
    """The map `miras_mlp`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_gelu = functional.gelu(out_matmul)
    out_matmul_1 = out_gelu @ W1.mT
    out_layernorm = layernorm(out_matmul_1, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    out = z + out_layernorm
    return out


class Moneta(Module):
    """`moneta(x)` with chunk = 16, expand = 2, heads = 2, p = 3.0, q = 4.0, window = 4.

    M: sequential (one token after the other).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("query.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("query.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("query.conv.bias", (32,), "rest", constant(0.0))
        self.declare("key.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("key.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("key.conv.bias", (32,), "rest", constant(0.0))
        self.declare("value.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("value.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("value.conv.bias", (32,), "rest", constant(0.0))
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
            "query.conv": {"tail": self.zeros(batch, 3, 32)},
            "key.conv": {"tail": self.zeros(batch, 3, 32)},
            "value.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "base": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "slots": {"A.W2": self.zeros(batch, 2, 32, 16), "A.W1": self.zeros(batch, 2, 16, 32)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        query_conv, new["query.conv"] = conv(
            linear(x, self.query.linear.weight),
            self.query.conv.weight,
            self.query.conv.bias,
            state=state["query.conv"],
            mask=mask,
        )
        query = l2norm(split(functional.silu(query_conv), n=2), eps=1e-06)
        key_conv, new["key.conv"] = conv(
            linear(x, self.key.linear.weight),
            self.key.conv.weight,
            self.key.conv.bias,
            state=state["key.conv"],
            mask=mask,
        )
        key = l2norm(split(functional.silu(key_conv), n=2), eps=1e-06)
        value_conv, new["value.conv"] = conv(
            linear(x, self.value.linear.weight),
            self.value.conv.weight,
            self.value.conv.bias,
            state=state["value.conv"],
            mask=mask,
        )
        value = functional.silu(value_conv)
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 16
        alpha = 1 - torch.sigmoid(linear(x, self.alpha.linear.weight, self.alpha.linear.bias)) / 16
        M_write_split = split(value, n=2)
        key_first = key.transpose(1, 2)
        M_write_split_first = M_write_split.transpose(1, 2)
        query_first = query.transpose(1, 2)
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_base = state["M"]["base"]["W2"]
        M_W1_base = state["M"]["base"]["W1"]
        M_A_W2 = state["M"]["slots"]["A.W2"]
        M_A_W1 = state["M"]["slots"]["A.W1"]
        M_count = state["M"]["count"]
        M_ends_16 = ends_of(M_count, mask, x, 16)
        out_M_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            key_t = key_first[:, :, t : t + 1]
            M_write_split_t = M_write_split_first[:, :, t : t + 1]
            eta_t = eta[:, t : t + 1]
            alpha_t = alpha[:, t : t + 1]
            query_t = query_first[:, :, t : t + 1]
            M_x_W2, M_dy_W2, M_x_W1, M_dy_W1 = miras_mlp_lp_gradient(
                key_t,
                M_write_split_t,
                M_W2_base,
                M_W1_base,
                self.M.out.layernorm.weight,
                self.M.out.layernorm.bias,
            )
            M_W2_step, M_A_W2_next = mirror_norm(
                M_W2,
                M_dy_W2.mT @ M_x_W2,
                next_step(M_count, M_W2),
                eta_t.mT[..., None],
                alpha_t.mT[..., None],
                M_A_W2,
            )
            M_W1_step, M_A_W1_next = mirror_norm(
                M_W1,
                M_dy_W1.mT @ M_x_W1,
                next_step(M_count, M_W1),
                eta_t.mT[..., None],
                alpha_t.mT[..., None],
                M_A_W1,
            )
            M_W2_next = M_W2_step
            M_W1_next = M_W1_step
            out_M = miras_mlp(
                query_t, M_W2_next, M_W1_next, self.M.out.layernorm.weight, self.M.out.layernorm.bias
            )
            M_W2 = hold(live, M_W2_next, M_W2)
            M_W1 = hold(live, M_W1_next, M_W1)
            M_A_W2 = hold(live, M_A_W2_next, M_A_W2)
            M_A_W1 = hold(live, M_A_W1_next, M_A_W1)
            M_count = tick(M_count, live)
            M_W2_base = choose(M_ends_16[t], M_W2, M_W2_base)
            M_W1_base = choose(M_ends_16[t], M_W1, M_W1_base)
            out_M_all.append(out_M)
        out_M_2 = join_tokens(out_M_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "base": {"W2": M_W2_base, "W1": M_W1_base},
            "slots": {"A.W2": M_A_W2, "A.W1": M_A_W1},
            "count": M_count,
        }
        out = linear(
            merge(norm(out_M_2, self.out.norm.weight, eps=1e-06))
            * functional.silu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `moneta`, its parameters drawn from `seed`."""
    return Layer(Moneta().initialise(seed), "moneta")
