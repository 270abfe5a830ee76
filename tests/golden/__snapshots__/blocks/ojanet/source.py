"""`ojanet`, compiled by nldsl from specs/blocks/ojanet.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, softplus, split
from nldsl.runtime.token import hold, join_tokens, live_at, tick
from torch import Tensor
from torch.nn import functional


def matrix_oja_gradient(key: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Gradient of `oja` at the map `matrix`, row by row.

    Returns g_weight: `x_W` is the input of the weight `W`, `dy_W` the gradient at its output, and the
    gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    return target.mT @ (target @ weight) + (-target).mT @ key


def gd(W: Tensor, g: Tensor, lr: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = lr * g
    W_1 = W - W_mul
    return W_1


def matrix(z: Tensor, weight: Tensor) -> Tensor:
    """The map `matrix`, row by row: `[..., C, z] -> [..., C, y]`."""
    y = z @ weight.mT
    return y


class Ojanet(Module):
    """`ojanet(x)` with heads = 2, window = 4.

    S: sequential (one token after the other).
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
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
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
        v = l2norm(split(functional.silu(v_conv), n=2), eps=1e-06)
        eta = torch.sigmoid(linear(x, self.eta.linear.weight))
        alpha_neg = -softplus(linear(x, self.alpha.linear.weight))
        alpha = torch.exp(alpha_neg)
        k_first = k.transpose(1, 2)
        v_first = v.transpose(1, 2)
        q_first = q.transpose(1, 2)
        S_weight = state["S"]["running"]["weight"]
        S_count = state["S"]["count"]
        out_S_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            k_t = k_first[:, :, t : t + 1]
            v_t = v_first[:, :, t : t + 1]
            eta_t = eta[:, t : t + 1]
            alpha_t = alpha[:, t : t + 1]
            alpha_neg_t = alpha_neg[:, t : t + 1]
            q_t = q_first[:, :, t : t + 1]
            S_g_weight = matrix_oja_gradient(k_t, v_t, S_weight)
            S_weight_next = (
                gd(S_weight, S_g_weight, eta_t.mT[..., None]) + (alpha_t.mT[..., None] - 1.0) * S_weight
            )
            out_S = matrix(q_t, S_weight_next)
            S_weight = hold(live, S_weight_next, S_weight)
            S_count = tick(S_count, live)
            out_S_all.append(out_S)
        out_S_2 = join_tokens(out_S_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["S"] = {"running": {"weight": S_weight}, "count": S_count}
        out = linear(
            merge(norm(out_S_2, self.out.norm.weight, eps=1e-06))
            * functional.silu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `ojanet`, its parameters drawn from `seed`."""
    return Layer(Ojanet().initialise(seed), "ojanet")
