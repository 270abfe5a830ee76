"""`omeganet`, compiled by nldsl from specs/blocks/omeganet.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.lessons import last_lessons, one_by_one, weighted_sum, with_earlier, with_earlier_weights
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import concat, conv, kron, l2norm, linear, merge, norm, parts, silu_pullback, split
from nldsl.runtime.token import hold, join_tokens, live_at, tick
from torch import Tensor
from torch.nn import functional


def perceptron_l2_gradient(
    key: Tensor, target: Tensor, W2: Tensor, W1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `perceptron`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    sub = silu @ W1.mT - target
    return key, silu_pullback(sub @ W1, matmul), silu, sub


def gd(W: Tensor, g: Tensor, lr: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = lr * g
    W_1 = W - W_mul
    return W_1


def perceptron(z: Tensor, W2: Tensor, W1: Tensor) -> Tensor:
    """The map `perceptron`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_silu = functional.silu(out_matmul)
    out = out_silu @ W1.mT
    return out


class Taylor(Module):
    """`taylor(z)`."""

    def __init__(self) -> None:
        super().__init__()

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {}

    def forward(self, z: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        s = z / 2.0
        first = parts(s, index=0, sizes=(1, 15))
        rest = parts(s, index=1, sizes=(1, 15))
        out = concat(0 * first + 1, first, rest, kron(s, s) / 1.4142135623730951)
        out_merge = merge(out)
        return out_merge, new


class Omeganet(Module):
    """`omeganet(x)` with context = 4, heads = 2, hidden = 64, window = 4.

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
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("gamma.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 64, 273), "matrix", normal(0.06052275326688024))
        self.declare("M.W1", (2, 16, 64), "matrix", normal(0.125))
        self.attach("taylor", Taylor())
        self.attach("taylor_2", Taylor())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "windows": {
                    "0": {
                        "key": self.zeros(batch, 2, 3, 273) + 1.0,
                        "target": self.zeros(batch, 2, 3, 16) + 1.0,
                        "weight": self.zeros(batch, 2, 3),
                    },
                },
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
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 4
        gamma = torch.sigmoid(linear(x, self.gamma.linear.weight))
        alpha = 1 - torch.sigmoid(linear(x, self.alpha.linear.weight, self.alpha.linear.bias)) / 4
        M_write_taylor, _ = self.taylor(k, state, mask)
        M_write_split = split(M_write_taylor, n=2)
        M_write_split_1 = split(v, n=2)
        out_taylor, _ = self.taylor_2(q, state, mask)
        out_split = split(out_taylor, n=2)
        M_write_split_first = M_write_split.transpose(1, 2)
        M_write_split_1_first = M_write_split_1.transpose(1, 2)
        out_split_first = out_split.transpose(1, 2)
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_key_1 = state["M"]["windows"]["0"]["key"]
        M_target_1 = state["M"]["windows"]["0"]["target"]
        M_weight_1 = state["M"]["windows"]["0"]["weight"]
        M_count = state["M"]["count"]
        out_M_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            M_write_split_t = M_write_split_first[:, :, t : t + 1]
            M_write_split_1_t = M_write_split_1_first[:, :, t : t + 1]
            eta_t = eta[:, t : t + 1]
            gamma_t = gamma[:, t : t + 1]
            alpha_t = alpha[:, t : t + 1]
            out_split_t = out_split_first[:, :, t : t + 1]
            key_lessons = with_earlier(M_key_1, M_write_split_t)
            M_key_1_next = last_lessons(key_lessons, 3, None)
            target_lessons = with_earlier(M_target_1, M_write_split_1_t)
            M_target_1_next = last_lessons(target_lessons, 3, None)
            weight_lessons = with_earlier_weights(
                M_weight_1, gamma_t.mT.expand(M_write_split_t.shape[:-1]), M_write_split_t
            )
            M_weight_1_next = last_lessons(weight_lessons, 3, None, axis=-1)
            M_x_W2, M_dy_W2, M_x_W1, M_dy_W1 = perceptron_l2_gradient(
                one_by_one(key_lessons), one_by_one(target_lessons), M_W2, M_W1
            )
            M_g_W2 = weighted_sum(M_dy_W2.mT @ M_x_W2, weight_lessons)
            M_g_W1 = weighted_sum(M_dy_W1.mT @ M_x_W1, weight_lessons)
            M_W2_next = gd(alpha_t.mT[..., None] * M_W2, M_g_W2, eta_t.mT[..., None])
            M_W1_next = gd(alpha_t.mT[..., None] * M_W1, M_g_W1, eta_t.mT[..., None])
            out_M = perceptron(out_split_t, M_W2_next, M_W1_next)
            M_W2 = hold(live, M_W2_next, M_W2)
            M_W1 = hold(live, M_W1_next, M_W1)
            M_key_1 = hold(live, M_key_1_next, M_key_1)
            M_target_1 = hold(live, M_target_1_next, M_target_1)
            M_weight_1 = hold(live, M_weight_1_next, M_weight_1)
            M_count = tick(M_count, live)
            out_M_all.append(out_M)
        out_M_2 = join_tokens(out_M_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "windows": {"0": {"key": M_key_1, "target": M_target_1, "weight": M_weight_1}},
            "count": M_count,
        }
        out = linear(
            merge(norm(out_M_2, self.out.norm.weight, eps=1e-06))
            * functional.silu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `omeganet`, its parameters drawn from `seed`."""
    return Layer(Omeganet().initialise(seed), "omeganet")
