"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import orthogonalize
from nldsl.runtime.token import commit, ends_of, hold, join_tokens, live_at, tick
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


def m3(
    W: Tensor, g: Tensor, m1: Tensor, s: Tensor, m2: Tensor, m2_visible: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of the rule `m3` for one token; gates are `[..., 1, 1]`."""
    m1_mul = 0.95 * g
    m1_1 = m1 + m1_mul
    s_pow = g**2
    s_mul = 0.95 * s_pow
    s_1 = s + s_mul
    m2_mul = 0.95 * g
    m2_1 = m2 + m2_mul
    W_orthogonalize = orthogonalize(m1_1, iterations=5)
    W_orthogonalize_1 = orthogonalize(m2_visible, iterations=5)
    W_mul = 0.5 * W_orthogonalize_1
    W_add = W_orthogonalize + W_mul
    W_mul_1 = 0.1 * W_add
    W_sqrt = torch.sqrt(s_1)
    W_add_1 = W_sqrt + 1e-08
    W_div = W_mul_1 / W_add_1
    W_1 = W - W_div
    return W_1, m1_1, s_1, m2_1


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other: `M`: a memory of rule `m3` has a clock or a shape of its
    own).
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
                    "m1.weight": self.zeros(batch, 8, 8),
                    "s.weight": self.zeros(batch, 8, 8),
                    "m2.weight": self.zeros(batch, 8, 8),
                    "m2_visible.weight": self.zeros(batch, 8, 8),
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
        M_m1_weight = state["M"]["slots"]["m1.weight"]
        M_s_weight = state["M"]["slots"]["s.weight"]
        M_m2_weight = state["M"]["slots"]["m2.weight"]
        M_m2_visible_weight = state["M"]["slots"]["m2_visible.weight"]
        M_count = state["M"]["count"]
        M_ends_16 = ends_of(M_count, mask, x, 16)
        y_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            x_t = x_tokens[t]
            y = matrix(x_t, M_weight_seen)
            M_x_weight, M_dy_weight = matrix_l2_gradient(x_t, x_t, M_weight_seen)
            M_weight_step, M_m1_weight_next, M_s_weight_next, M_m2_weight_next = m3(
                M_weight,
                M_dy_weight.mT @ M_x_weight,
                M_m1_weight,
                M_s_weight,
                M_m2_weight,
                M_m2_visible_weight,
            )
            M_m2_visible_weight_next = commit(M_count + 1, 10, None, M_m2_weight_next, M_m2_visible_weight)
            M_weight_next = M_weight_step
            M_weight = hold(live, M_weight_next, M_weight)
            M_m1_weight = hold(live, M_m1_weight_next, M_m1_weight)
            M_s_weight = hold(live, M_s_weight_next, M_s_weight)
            M_m2_weight = hold(live, M_m2_weight_next, M_m2_weight)
            M_m2_visible_weight = hold(live, M_m2_visible_weight_next, M_m2_visible_weight)
            M_count = tick(M_count, live)
            M_weight_seen = choose(M_ends_16[t], M_weight, M_weight_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 1, self.zeros(x.shape[0], 0, 8), mask)
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {
                "m1.weight": M_m1_weight,
                "s.weight": M_s_weight,
                "m2.weight": M_m2_weight,
                "m2_visible.weight": M_m2_visible_weight,
            },
            "count": M_count,
        }
        return y_2, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
