"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import eq, where
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


def schedule_free(
    W: Tensor, g: Tensor, step: Tensor, z: Tensor, average: Tensor, s: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One step of the rule `schedule_free` for one token; gates are `[..., 1, 1]`."""
    z_eq = eq(step, 1)
    z_1 = where(z_eq, W, z)
    average_eq = eq(step, 1)
    average_1 = where(average_eq, W, average)
    rate_pow = 0.999**step
    rate_sub = 1 - rate_pow
    rate_sqrt = torch.sqrt(rate_sub)
    rate = 0.1 * rate_sqrt
    s_mul = 0.999 * s
    s_pow = g**2
    s_mul_1 = 0.0010000000000000009 * s_pow
    s_1 = s_mul + s_mul_1
    z_sqrt = torch.sqrt(s_1)
    z_add = z_sqrt + 1e-08
    z_div = g / z_add
    z_mul = 0 * W
    z_add_1 = z_div + z_mul
    z_mul_1 = rate * z_add_1
    z_2 = z_1 - z_mul_1
    total_pow = rate**2
    total_1 = total + total_pow
    c_pow = rate**2
    c = c_pow / total_1
    average_sub = 1 - c
    average_mul = average_sub * average_1
    average_mul_1 = c * z_2
    average_2 = average_mul + average_mul_1
    W_mul = 0.09999999999999998 * z_2
    W_mul_1 = 0.9 * average_2
    W_1 = W_mul + W_mul_1
    return W_1, z_2, average_2, s_1, total_1


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other: `M`: a memory of rule `schedule_free` has a clock or a
    shape of its own).
    """

    def __init__(self) -> None:
        super().__init__()

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"weight": self.zeros(batch, 8, 8)},
                "committed": {"weight": self.zeros(batch, 8, 8)},
                "slots": {
                    "z.weight": self.zeros(batch, 8, 8),
                    "average.weight": self.zeros(batch, 8, 8),
                    "s.weight": self.zeros(batch, 8, 8),
                    "total.weight": self.zeros(batch),
                },
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_tokens = x.split(1, 1)
        M_weight = state["M"]["running"]["weight"]
        M_weight_seen = state["M"]["committed"]["weight"]
        M_z_weight = state["M"]["slots"]["z.weight"]
        M_average_weight = state["M"]["slots"]["average.weight"]
        M_s_weight = state["M"]["slots"]["s.weight"]
        M_total_weight = state["M"]["slots"]["total.weight"][..., None, None]
        M_count = state["M"]["count"]
        M_ends_16 = ends_of(M_count, mask, x, 16)
        y_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            x_t = x_tokens[t]
            y = matrix(x_t, M_weight_seen)
            M_x_weight, M_dy_weight = matrix_l2_gradient(x_t, x_t, M_weight_seen)
            (
                M_weight_step,
                M_z_weight_next,
                M_average_weight_next,
                M_s_weight_next,
                M_total_weight_next,
            ) = schedule_free(
                M_weight,
                M_dy_weight.mT @ M_x_weight,
                next_step(M_count, M_weight),
                M_z_weight,
                M_average_weight,
                M_s_weight,
                M_total_weight,
            )
            M_weight_next = M_weight_step
            M_weight = hold(live, M_weight_next, M_weight)
            M_z_weight = hold(live, M_z_weight_next, M_z_weight)
            M_average_weight = hold(live, M_average_weight_next, M_average_weight)
            M_s_weight = hold(live, M_s_weight_next, M_s_weight)
            M_total_weight = hold(live, M_total_weight_next, M_total_weight)
            M_count = tick(M_count, live)
            M_weight_seen = choose(M_ends_16[t], M_weight, M_weight_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 1, self.zeros(x.shape[0], 0, 8), mask)
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {
                "z.weight": M_z_weight,
                "average.weight": M_average_weight,
                "s.weight": M_s_weight,
                "total.weight": M_total_weight[..., 0, 0],
            },
            "count": M_count,
        }
        return y_2, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
