"""`deltaproduct`, compiled by nldsl from specs/blocks/deltaproduct.nl.  Edit the specification, not this
file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, split
from nldsl.runtime.token import hold, join_tokens, live_at, tick
from torch import Tensor
from torch.nn import functional


def matrix_l2_gradient(key: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `l2` at the map `matrix`, row by row.

    Returns x_weight, dy_weight: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    return key, key @ weight.mT - target


def gd(W: Tensor, g: Tensor, lr: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = lr * g
    W_1 = W - W_mul
    return W_1


def matrix(z: Tensor, weight: Tensor) -> Tensor:
    """The map `matrix`, row by row: `[..., C, z] -> [..., C, y]`."""
    y = z @ weight.mT
    return y


class Deltaproduct(Module):
    """`deltaproduct(x)` with heads = 2, steps = (1, 2), window = 4.

    S: sequential (one token after the other).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k[0].linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k[0].conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k[0].conv.bias", (32,), "rest", constant(0.0))
        self.declare("v[0].linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v[0].conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v[0].conv.bias", (32,), "rest", constant(0.0))
        self.declare("beta[0].linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("k[1].linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k[1].conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k[1].conv.bias", (32,), "rest", constant(0.0))
        self.declare("v[1].linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v[1].conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v[1].conv.bias", (32,), "rest", constant(0.0))
        self.declare("beta[1].linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k[0].conv": {"tail": self.zeros(batch, 3, 32)},
            "v[0].conv": {"tail": self.zeros(batch, 3, 32)},
            "k[1].conv": {"tail": self.zeros(batch, 3, 32)},
            "v[1].conv": {"tail": self.zeros(batch, 3, 32)},
            "S": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
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
        k_conv, new["k[0].conv"] = conv(
            linear(x, self.k[0].linear.weight),
            self.k[0].conv.weight,
            self.k[0].conv.bias,
            state=state["k[0].conv"],
            mask=mask,
        )
        k = l2norm(split(functional.silu(k_conv), n=2), eps=1e-06)
        v_conv, new["v[0].conv"] = conv(
            linear(x, self.v[0].linear.weight),
            self.v[0].conv.weight,
            self.v[0].conv.bias,
            state=state["v[0].conv"],
            mask=mask,
        )
        v = functional.silu(v_conv)
        beta = 2 * torch.sigmoid(linear(x, self.beta[0].linear.weight))
        S_write_split = split(v, n=2)
        k_conv_1, new["k[1].conv"] = conv(
            linear(x, self.k[1].linear.weight),
            self.k[1].conv.weight,
            self.k[1].conv.bias,
            state=state["k[1].conv"],
            mask=mask,
        )
        k_1 = l2norm(split(functional.silu(k_conv_1), n=2), eps=1e-06)
        v_conv_1, new["v[1].conv"] = conv(
            linear(x, self.v[1].linear.weight),
            self.v[1].conv.weight,
            self.v[1].conv.bias,
            state=state["v[1].conv"],
            mask=mask,
        )
        v_1 = functional.silu(v_conv_1)
        beta_1 = 2 * torch.sigmoid(linear(x, self.beta[1].linear.weight))
        S_write_split_1 = split(v_1, n=2)
        k_first = k.transpose(1, 2)
        S_write_split_first = S_write_split.transpose(1, 2)
        k_1_first = k_1.transpose(1, 2)
        S_write_split_1_first = S_write_split_1.transpose(1, 2)
        q_first = q.transpose(1, 2)
        S_weight = state["S"]["running"]["weight"]
        S_count = state["S"]["count"]
        out_S_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            k_t = k_first[:, :, t : t + 1]
            S_write_split_t = S_write_split_first[:, :, t : t + 1]
            beta_t = beta[:, t : t + 1]
            k_1_t = k_1_first[:, :, t : t + 1]
            S_write_split_1_t = S_write_split_1_first[:, :, t : t + 1]
            beta_1_t = beta_1[:, t : t + 1]
            q_t = q_first[:, :, t : t + 1]
            S_x_weight, S_dy_weight = matrix_l2_gradient(k_t, S_write_split_t, S_weight)
            S_weight_next = gd(S_weight, S_dy_weight.mT @ S_x_weight, beta_t.mT[..., None])
            S_x_weight_2, S_dy_weight_2 = matrix_l2_gradient(k_1_t, S_write_split_1_t, S_weight_next)
            S_weight_next_2 = gd(S_weight_next, S_dy_weight_2.mT @ S_x_weight_2, beta_1_t.mT[..., None])
            out_S = matrix(q_t, S_weight_next_2)
            S_weight = hold(live, S_weight_next_2, S_weight)
            S_count = tick(S_count, live)
            out_S_all.append(out_S)
        out_S_2 = join_tokens(out_S_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["S"] = {"running": {"weight": S_weight}, "count": S_count}
        out = linear(merge(norm(out_S_2, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `deltaproduct`, its parameters drawn from `seed`."""
    return Layer(Deltaproduct().initialise(seed), "deltaproduct")
