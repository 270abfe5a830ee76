"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.ops import silu_pullback
from nldsl.runtime.token import ends_of, hold, join_tokens, live_at, tick_all
from torch import Tensor
from torch.nn import functional


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


def deep_momentum(W: Tensor, g: Tensor, m_W2: Tensor, m_W1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the rule `deep_momentum` for one token; gates are `[..., 1, 1]`."""
    m_write_transpose = g.mT
    m_write_matmul = m_W2 @ m_write_transpose
    m_write_silu = functional.silu(m_write_matmul)
    m_write_matmul_1 = m_W1 @ m_write_silu
    m_write_add = m_write_transpose + m_write_matmul_1
    m_write_transpose_1 = m_write_add.mT
    m_write_mul = m_write_transpose_1 * 1
    m_write_sum = m_write_mul.sum(-1)[..., None, :]
    m_write_neg = -m_write_sum
    m_write_expand_last = torch.full_like(m_write_neg, 1.0)
    m_write_neg_1 = -m_write_expand_last
    m_write_expand_last_1 = m_write_neg_1.mT.expand_as(m_write_mul)
    m_write_transpose_2 = m_write_expand_last_1.mT
    m_write_transpose_3 = m_W1.mT
    m_write_matmul_2 = m_write_transpose_3 @ m_write_transpose_2
    m_write_transpose_4 = m_write_silu.mT
    m_write_matmul_3 = m_write_transpose_2 @ m_write_transpose_4
    m_write_silu_pullback = silu_pullback(m_write_matmul_2, m_write_matmul)
    m_write_transpose_6 = m_write_transpose.mT
    m_write_matmul_5 = m_write_silu_pullback @ m_write_transpose_6
    W_mul = 0.1 * m_write_matmul_5
    W_1 = m_W2 - W_mul
    m_write_sub = W_1 - m_W2
    m_write_mul_2 = 0.9 * m_W2
    m_write_add_1 = m_write_mul_2 + m_write_sub
    W_mul_1 = 0.1 * m_write_matmul_3
    W_2 = m_W1 - W_mul_1
    m_write_sub_1 = W_2 - m_W1
    m_write_mul_3 = 0.9 * m_W1
    m_write_add_2 = m_write_mul_3 + m_write_sub_1
    W_transpose = g.mT
    W_matmul = m_write_add_1 @ W_transpose
    W_silu = functional.silu(W_matmul)
    W_matmul_1 = m_write_add_2 @ W_silu
    W_add = W_transpose + W_matmul_1
    W_transpose_1 = W_add.mT
    W_3 = W + W_transpose_1
    return W_3, m_write_add_1, m_write_add_2


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other: `M`: a memory of rule `deep_momentum` has a clock or a
    shape of its own).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("M.m.W2", (8, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.m.W1", (8, 8), "matrix", normal(0.3535533905932738))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"weight": self.zeros(batch, 8, 8)},
                "committed": {"weight": self.zeros(batch, 8, 8)},
                "slots": {
                    "m_W2.weight": self.start(self.M.m.W2, batch),
                    "m_W1.weight": self.start(self.M.m.W1, batch),
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
        M_m_W2_weight = state["M"]["slots"]["m_W2.weight"]
        M_m_W1_weight = state["M"]["slots"]["m_W1.weight"]
        M_count = state["M"]["count"]
        M_ends_16 = ends_of(M_count, mask, x, 16)
        y_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            x_t = x_tokens[t]
            y = matrix(x_t, M_weight_seen)
            M_x_weight, M_dy_weight = matrix_l2_gradient(x_t, x_t, M_weight_seen)
            M_weight_step, M_m_W2_weight_next, M_m_W1_weight_next = deep_momentum(
                M_weight, M_dy_weight.mT @ M_x_weight, M_m_W2_weight, M_m_W1_weight
            )
            M_weight_next = M_weight_step
            M_weight = hold(live, M_weight_next, M_weight)
            M_m_W2_weight = hold(live, M_m_W2_weight_next, M_m_W2_weight)
            M_m_W1_weight = hold(live, M_m_W1_weight_next, M_m_W1_weight)
            M_weight_seen = choose(M_ends_16[t], M_weight, M_weight_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 1, self.zeros(x.shape[0], 0, 8), mask)
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {"m_W2.weight": M_m_W2_weight, "m_W1.weight": M_m_W1_weight},
            "count": tick_all(M_count, mask, x),
        }
        return y_2, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
