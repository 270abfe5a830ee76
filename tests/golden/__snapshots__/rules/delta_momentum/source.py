"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import identity
from nldsl.runtime.token import ends_of, hold, join_tokens, live_at, tick_all
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


def delta_momentum(W: Tensor, g: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the rule `delta_momentum` for one token; gates are `[..., 1, 1]`."""
    m_write_transpose = g.mT
    m_write_matmul = m @ m_write_transpose
    m_write_transpose_1 = m_write_matmul.mT
    m_write_identity = identity(size=8, like=W)
    m_write_neg = -m_write_identity
    m_write_sub = m_write_transpose_1 - m_write_neg
    m_write_pow = m_write_sub**2
    m_write_sum = m_write_pow.sum(-1)[..., None, :]
    m_write_mul = 0.5 * m_write_sum
    m_write_expand_last = torch.full_like(m_write_mul, 1.0)
    m_write_mul_2 = m_write_expand_last * 0.5
    m_write_expand_last_1 = m_write_mul_2.mT.expand_as(m_write_pow)
    m_write_pow_1 = m_write_sub**1.0
    m_write_mul_3 = 2 * m_write_pow_1
    m_write_mul_4 = m_write_expand_last_1 * m_write_mul_3
    m_write_transpose_2 = m_write_mul_4.mT
    m_write_transpose_4 = m_write_transpose.mT
    m_write_matmul_2 = m_write_transpose_2 @ m_write_transpose_4
    W_mul = 0.1 * m_write_matmul_2
    W_1 = m - W_mul
    m_write_sub_2 = W_1 - m
    m_write_mul_7 = 0.9 * m
    m_write_add = m_write_mul_7 + m_write_sub_2
    W_2 = W + m_write_add
    return W_2, m_write_add


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other: `M`: rule `delta_momentum` is not linear in the weight,
    its gradient and its memories).
    """

    def __init__(self) -> None:
        super().__init__()

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"weight": self.zeros(batch, 8, 8)},
                "committed": {"weight": self.zeros(batch, 8, 8)},
                "slots": {"m.weight": self.zeros(batch, 8, 8)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_tokens = x.split(1, 1)
        M_weight = state["M"]["running"]["weight"]
        M_weight_seen = state["M"]["committed"]["weight"]
        M_m_weight = state["M"]["slots"]["m.weight"]
        M_count = state["M"]["count"]
        M_ends_16 = ends_of(M_count, mask, x, 16)
        y_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            x_t = x_tokens[t]
            y = matrix(x_t, M_weight_seen)
            M_x_weight, M_dy_weight = matrix_l2_gradient(x_t, x_t, M_weight_seen)
            M_weight_step, M_m_weight_next = delta_momentum(M_weight, M_dy_weight.mT @ M_x_weight, M_m_weight)
            M_weight_next = M_weight_step
            M_weight = hold(live, M_weight_next, M_weight)
            M_m_weight = hold(live, M_m_weight_next, M_m_weight)
            M_weight_seen = choose(M_ends_16[t], M_weight, M_weight_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 1, self.zeros(x.shape[0], 0, 8), mask)
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {"m.weight": M_m_weight},
            "count": tick_all(M_count, mask, x),
        }
        return y_2, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
