"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import maximum, minimum
from nldsl.runtime.token import ends_of, hold, join_tokens, live_at, next_step, tick
from torch import Tensor


def matrix(z: Tensor, weight: Tensor) -> Tensor:
    """The map `matrix`, row by row: `[..., C, z] -> [..., C, y]`."""
    y = z @ weight.mT
    return y


def matrix_l2_gradient(key: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `l2` at the map `matrix`, row by row.

    Returns x_weight, dy_weight: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    return key, key @ weight.mT - target


def adafactor(W: Tensor, g: Tensor, step: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the rule `adafactor` for one token; gates are `[..., 1, 1]`."""
    share = step**-0.8
    size_pow = W**2
    size_mean = size_pow.mean(-1)[..., None, :]
    size_mean_1 = size_mean.mean(-1, keepdim=True)
    size = torch.sqrt(size_mean_1)
    r_sub = 1 - share
    r_mul = r_sub * r
    r_pow = g**2
    r_mean = r_pow.mean(-1)[..., None, :]
    r_mul_1 = share * r_mean
    r_1 = r_mul + r_mul_1
    c_sub = 1 - share
    c_mul = c_sub * c
    c_pow = g**2
    c_transpose = c_pow.mT
    c_mean = c_transpose.mean(-1)[..., None, :]
    c_mul_1 = share * c_mean
    c_3 = c_mul + c_mul_1
    v_outer = r_1.mT @ c_3
    v_mean = r_1.mean(-1, keepdim=True)
    v_maximum = maximum(v_mean, 1.2e-07)
    v = v_outer / v_maximum
    u_maximum = maximum(v, 1.4399999999999997e-14)
    u_sqrt = torch.sqrt(u_maximum)
    u = g / u_sqrt
    most_pow = u**2
    most_mean = most_pow.mean(-1)[..., None, :]
    most_mean_1 = most_mean.mean(-1, keepdim=True)
    most = torch.sqrt(most_mean_1)
    rate_maximum = maximum(0.001, size)
    rate_sqrt = torch.sqrt(step)
    rate_div = 1 / rate_sqrt
    rate_minimum = minimum(0.1, rate_div)
    rate = rate_maximum * rate_minimum
    W_mul = 1.0 * W
    W_div = most / 1
    W_maximum = maximum(1, W_div)
    W_div_1 = rate / W_maximum
    W_mul_1 = W_div_1 * u
    W_1 = W_mul - W_mul_1
    return W_1, r_1, c_3


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other: `M`: a memory of rule `adafactor` has a clock or a shape
    of its own).
    """

    def __init__(self) -> None:
        super().__init__()

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"weight": self.zeros(batch, 8, 8)},
                "committed": {"weight": self.zeros(batch, 8, 8)},
                "slots": {"r.weight": self.zeros(batch, 8), "c.weight": self.zeros(batch, 8)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_tokens = x.split(1, 1)
        M_weight = state["M"]["running"]["weight"]
        M_weight_seen = state["M"]["committed"]["weight"]
        M_r_weight = state["M"]["slots"]["r.weight"].unsqueeze(-2)
        M_c_weight = state["M"]["slots"]["c.weight"].unsqueeze(-2)
        M_count = state["M"]["count"]
        M_ends_16 = ends_of(M_count, mask, x, 16)
        y_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            x_t = x_tokens[t]
            y = matrix(x_t, M_weight_seen)
            M_x_weight, M_dy_weight = matrix_l2_gradient(x_t, x_t, M_weight_seen)
            M_weight_step, M_r_weight_next, M_c_weight_next = adafactor(
                M_weight, M_dy_weight.mT @ M_x_weight, next_step(M_count, M_weight), M_r_weight, M_c_weight
            )
            M_weight_next = M_weight_step
            M_weight = hold(live, M_weight_next, M_weight)
            M_r_weight = hold(live, M_r_weight_next, M_r_weight)
            M_c_weight = hold(live, M_c_weight_next, M_c_weight)
            M_count = tick(M_count, live)
            M_weight_seen = choose(M_ends_16[t], M_weight, M_weight_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 1, self.zeros(x.shape[0], 0, 8), mask)
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {"r.weight": M_r_weight.squeeze(-2), "c.weight": M_c_weight.squeeze(-2)},
            "count": M_count,
        }
        return y_2, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
