"""`titans_linear`, compiled by nldsl from specs/blocks/titans_linear.nl.  Edit the specification, not this
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


def momentum(W: Tensor, g: Tensor, lr: Tensor, beta: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the rule `momentum` for one token; gates are `[..., 1, 1]`."""
    m_mul = beta * m
    m_mul_1 = lr * g
    m_1 = m_mul - m_mul_1
    W_1 = W + m_1
    return W_1, m_1


def matrix(z: Tensor, weight: Tensor) -> Tensor:
    """The map `matrix`, row by row: `[..., C, z] -> [..., C, y]`."""
    y = z @ weight.mT
    return y


class TitansLinear(Module):
    """`titans_linear(x)` with heads = 2, window = 4.

    M: sequential (one token after the other).
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
        self.declare("theta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"weight": self.zeros(batch, 2, 16, 16)},
                "slots": {"m.weight": self.zeros(batch, 2, 16, 16)},
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
        theta = torch.sigmoid(linear(x, self.theta.linear.weight))
        eta = torch.sigmoid(linear(x, self.eta.linear.weight))
        alpha = torch.sigmoid(linear(x, self.alpha.linear.weight, self.alpha.linear.bias))
        M_write_split = split(v, n=2)
        M_write_sub = 1 - alpha
        k_first = k.transpose(1, 2)
        M_write_split_first = M_write_split.transpose(1, 2)
        q_first = q.transpose(1, 2)
        M_weight = state["M"]["running"]["weight"]
        M_m_weight = state["M"]["slots"]["m.weight"]
        M_count = state["M"]["count"]
        out_M_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            k_t = k_first[:, :, t : t + 1]
            M_write_split_t = M_write_split_first[:, :, t : t + 1]
            theta_t = theta[:, t : t + 1]
            eta_t = eta[:, t : t + 1]
            M_write_sub_t = M_write_sub[:, t : t + 1]
            q_t = q_first[:, :, t : t + 1]
            M_x_weight, M_dy_weight = matrix_l2_gradient(k_t, M_write_split_t, M_weight)
            M_weight_step, M_m_weight_next = momentum(
                M_weight, M_dy_weight.mT @ M_x_weight, theta_t.mT[..., None], eta_t.mT[..., None], M_m_weight
            )
            M_weight_next = M_weight_step + (M_write_sub_t.mT[..., None] - 1.0) * M_weight
            out_M = matrix(q_t, M_weight_next)
            M_weight = hold(live, M_weight_next, M_weight)
            M_m_weight = hold(live, M_m_weight_next, M_m_weight)
            M_count = tick(M_count, live)
            out_M_all.append(out_M)
        out_M_2 = join_tokens(out_M_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["M"] = {"running": {"weight": M_weight}, "slots": {"m.weight": M_m_weight}, "count": M_count}
        out = linear(
            merge(norm(out_M_2, self.out.norm.weight, eps=1e-06))
            * functional.silu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `titans_linear`, its parameters drawn from `seed`."""
    return Layer(TitansLinear().initialise(seed), "titans_linear")
