"""`mesanet`, compiled by nldsl from specs/blocks/mesanet.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, softplus, split
from nldsl.runtime.solve import ridge_solve
from nldsl.runtime.token import hold, join_tokens, live_at, tick
from torch import Tensor
from torch.nn import functional


def matrix_dot_gradient(key: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `dot` at the map `matrix`, row by row.

    Returns x_weight, dy_weight: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    return key, -target


def gd(W: Tensor, g: Tensor, lr: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = lr * g
    W_1 = W - W_mul
    return W_1


def matrix(z: Tensor, weight: Tensor) -> Tensor:
    """The map `matrix`, row by row: `[..., C, z] -> [..., C, y]`."""
    y = z @ weight.mT
    return y


class Mesanet(Module):
    """`mesanet(x)` with heads = 2, iterations = 0, window = 4.

    H, G: sequential (one token after the other).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("ridge.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("beta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("gamma.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("gamma.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "H": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
            "G": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        ridge = split(0.25 + softplus(self.ridge.weight.weight), n=2) ** 0.5
        q_conv, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
        )
        q = l2norm(split(functional.silu(q_conv), n=2), eps=1e-06) / ridge
        k_conv, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
        )
        k = l2norm(split(functional.silu(k_conv), n=2), eps=1e-06) / ridge
        v = linear(x, self.v.linear.weight)
        beta = torch.sigmoid(linear(x, self.beta.linear.weight))
        gamma_linear = linear(x, self.gamma.linear.weight, self.gamma.linear.bias)
        gamma = torch.sigmoid(gamma_linear)
        gamma__log = functional.logsigmoid(gamma_linear)
        G_write_split = split(v, n=2)
        k_first = k.transpose(1, 2)
        G_write_split_first = G_write_split.transpose(1, 2)
        q_first = q.transpose(1, 2)
        H_weight = state["H"]["running"]["weight"]
        H_count = state["H"]["count"]
        G_weight = state["G"]["running"]["weight"]
        G_count = state["G"]["count"]
        out_G_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            k_t = k_first[:, :, t : t + 1]
            beta_t = beta[:, t : t + 1]
            gamma_t = gamma[:, t : t + 1]
            gamma__log_t = gamma__log[:, t : t + 1]
            G_write_split_t = G_write_split_first[:, :, t : t + 1]
            q_t = q_first[:, :, t : t + 1]
            H_x_weight, H_dy_weight = matrix_dot_gradient(k_t, k_t, H_weight)
            H_weight_next = (
                gd(H_weight, H_dy_weight.mT @ H_x_weight, beta_t.mT[..., None])
                + (gamma_t.mT[..., None] - 1.0) * H_weight
            )
            G_x_weight, G_dy_weight = matrix_dot_gradient(k_t, G_write_split_t, G_weight)
            G_weight_next = (
                gd(G_weight, G_dy_weight.mT @ G_x_weight, beta_t.mT[..., None])
                + (gamma_t.mT[..., None] - 1.0) * G_weight
            )
            out_G = matrix(ridge_solve(H_weight_next, q_t, ridge=1.0, iterations=0), G_weight_next)
            H_weight = hold(live, H_weight_next, H_weight)
            H_count = tick(H_count, live)
            G_weight = hold(live, G_weight_next, G_weight)
            G_count = tick(G_count, live)
            out_G_all.append(out_G)
        out_G_2 = join_tokens(out_G_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["H"] = {"running": {"weight": H_weight}, "count": H_count}
        new["G"] = {"running": {"weight": G_weight}, "count": G_count}
        out = linear(merge(norm(out_G_2, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `mesanet`, its parameters drawn from `seed`."""
    return Layer(Mesanet().initialise(seed), "mesanet")
