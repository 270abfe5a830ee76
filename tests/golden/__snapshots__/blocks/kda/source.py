"""`kda`, compiled by nldsl from specs/blocks/kda.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, softplus, split
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


class Kda(Module):
    """`kda(x)` with heads = 2, rank = 16, window = 4.

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
        self.declare("beta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("A.weight.weight", (2,), "rest", normal(0.7071067811865476))
        self.declare("alpha.linear.weight", (16, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear_2.weight", (32, 16), "matrix", normal(0.25))
        self.declare("alpha.linear_2.bias", (32,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (16, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 16), "matrix", normal(0.25))
        self.declare("out.linear_3.weight", (32, 32), "matrix", normal(0.1767766952966369))

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
        v = functional.silu(v_conv)
        beta = torch.sigmoid(linear(x, self.beta.linear.weight))
        A = self.A.weight.weight
        alpha = torch.exp(
            (-torch.exp(A))[:, None]
            * split(
                softplus(
                    linear(
                        linear(x, self.alpha.linear.weight),
                        self.alpha.linear_2.weight,
                        self.alpha.linear_2.bias,
                    ),
                ),
                n=2,
            ),
        )
        S_write_split = split(v, n=2)
        alpha_first = alpha.transpose(1, 2)
        k_first = k.transpose(1, 2)
        S_write_split_first = S_write_split.transpose(1, 2)
        q_first = q.transpose(1, 2)
        S_weight = state["S"]["running"]["weight"]
        S_count = state["S"]["count"]
        out_S_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            alpha_t = alpha_first[:, :, t : t + 1]
            k_t = k_first[:, :, t : t + 1]
            S_write_split_t = S_write_split_first[:, :, t : t + 1]
            beta_t = beta[:, t : t + 1]
            q_t = q_first[:, :, t : t + 1]
            S_weight_next = S_weight * alpha_t
            S_x_weight, S_dy_weight = matrix_l2_gradient(k_t, S_write_split_t, S_weight_next)
            S_weight_next_2 = gd(S_weight_next, S_dy_weight.mT @ S_x_weight, beta_t.mT[..., None])
            out_S = matrix(q_t, S_weight_next_2)
            S_weight = hold(live, S_weight_next_2, S_weight)
            S_count = tick(S_count, live)
            out_S_all.append(out_S)
        out_S_2 = join_tokens(out_S_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["S"] = {"running": {"weight": S_weight}, "count": S_count}
        out = linear(
            merge(norm(out_S_2, self.out.norm.weight, eps=1e-06))
            * torch.sigmoid(linear(linear(x, self.out.linear.weight), self.out.linear_2.weight)),
            self.out.linear_3.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `kda`, its parameters drawn from `seed`."""
    return Layer(Kda().initialise(seed), "kda")
