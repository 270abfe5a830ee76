"""`rwkv7`, compiled by nldsl from specs/blocks/rwkv7.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import dot, l2norm, layernorm, linear, merge, shift, split
from nldsl.runtime.token import hold, join_tokens, live_at, tick
from torch import Tensor


def matrix_l2_gradient(key: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `l2` at the map `matrix`, row by row.

    Returns x_weight, dy_weight: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    return key, key @ weight.mT - target


def matrix_dot_gradient(key: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `dot` at the map `matrix`, row by row.

    Returns x_weight, dy_weight: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    return key, -target


def gd(W: Tensor, g: Tensor, lr: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    out_transpose = W.mT
    out_expand_last = lr.mT.expand_as(out_transpose)
    out_transpose_1 = out_expand_last.mT
    W_mul = out_transpose_1 * g
    W_1 = W - W_mul
    return W_1


def gd_2(W: Tensor, g: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = 1 * g
    W_1 = W - W_mul
    return W_1


def matrix(z: Tensor, weight: Tensor) -> Tensor:
    """The map `matrix`, row by row: `[..., C, z] -> [..., C, y]`."""
    y = z @ weight.mT
    return y


class Rwkv7(Module):
    """`rwkv7(x)` with eps = 0.00064, heads = 2, rank = 8.

    S: sequential (one token after the other).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("r.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("r.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("w.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("w.linear.weight", (8, 32), "matrix", normal(0.1767766952966369))
        self.declare("w.linear_2.weight", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("w.linear_2.bias", (32,), "rest", constant(0.0))
        self.declare("raw.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("raw.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("a.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("a.linear.weight", (8, 32), "matrix", normal(0.1767766952966369))
        self.declare("a.linear_2.weight", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("a.linear_2.bias", (32,), "rest", constant(0.0))
        self.declare("g.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("g.linear.weight", (8, 32), "matrix", normal(0.1767766952966369))
        self.declare("g.linear_2.weight", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("kappa.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("k.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("bonus.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("out.layernorm.weight", (16,), "norm", constant(1.0))
        self.declare("out.layernorm.bias", (16,), "norm", constant(0.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "gap.shift": {"tail": self.zeros(batch, 1, 32)},
            "S": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        gap_shift, new["gap.shift"] = shift(x, by=1, state=state["gap.shift"], mask=mask)
        gap = gap_shift - x
        r = split(linear(x + gap * self.r.weight.weight, self.r.linear.weight), n=2)
        w = split(
            torch.exp(
                -0.6065306597126334
                * torch.sigmoid(
                    linear(
                        torch.tanh(linear(x + gap * self.w.weight.weight, self.w.linear.weight)),
                        self.w.linear_2.weight,
                        self.w.linear_2.bias,
                    ),
                ),
            ),
            n=2,
        )
        raw = linear(x + gap * self.raw.weight.weight, self.raw.linear.weight)
        v = split(linear(x + gap * self.v.weight.weight, self.v.linear.weight), n=2)
        a = split(
            torch.sigmoid(
                linear(
                    linear(x + gap * self.a.weight.weight, self.a.linear.weight),
                    self.a.linear_2.weight,
                    self.a.linear_2.bias,
                ),
            ),
            n=2,
        )
        g = linear(
            torch.sigmoid(linear(x + gap * self.g.weight.weight, self.g.linear.weight)),
            self.g.linear_2.weight,
        )
        kappa = l2norm(split(raw * self.kappa.weight.weight, n=2), eps=1e-06)
        k = split(raw * (1 + (merge(a) - 1) * self.k.weight.weight), n=2)
        kappa_first = kappa.transpose(1, 2)
        a_first = a.transpose(1, 2)
        k_first = k.transpose(1, 2)
        v_first = v.transpose(1, 2)
        w_first = w.transpose(1, 2)
        r_first = r.transpose(1, 2)
        S_weight = state["S"]["running"]["weight"]
        S_count = state["S"]["count"]
        out_S_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            kappa_t = kappa_first[:, :, t : t + 1]
            a_t = a_first[:, :, t : t + 1]
            k_t = k_first[:, :, t : t + 1]
            v_t = v_first[:, :, t : t + 1]
            w_t = w_first[:, :, t : t + 1]
            r_t = r_first[:, :, t : t + 1]
            S_x_weight, S_dy_weight = matrix_l2_gradient(
                kappa_t, kappa_t.new_full((*kappa_t.shape[:-1], 16), 0), S_weight
            )
            S_x_weight_2, S_dy_weight_2 = matrix_dot_gradient(k_t, v_t, S_weight)
            S_weight_next = (
                gd(S_weight, S_dy_weight.mT @ S_x_weight, a_t)
                + gd_2(S_weight, S_dy_weight_2.mT @ S_x_weight_2)
                + (w_t - 2.0) * S_weight
            )
            out_S = matrix(r_t, S_weight_next)
            S_weight = hold(live, S_weight_next, S_weight)
            S_count = tick(S_count, live)
            out_S_all.append(out_S)
        out_S_2 = join_tokens(out_S_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["S"] = {"running": {"weight": S_weight}, "count": S_count}
        bonus = dot(r, k * split(self.bonus.weight.weight, n=2))[..., None] * v
        out = linear(
            g
            * merge(
                layernorm(out_S_2, self.out.layernorm.weight, self.out.layernorm.bias, eps=0.00064) + bonus
            ),
            self.out.linear.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `rwkv7`, its parameters drawn from `seed`."""
    return Layer(Rwkv7().initialise(seed), "rwkv7")
