"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import eigenbasis, eq, multiple_of, orthonormal, unbias, where
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


def soap(
    W: Tensor,
    g: Tensor,
    step: Tensor,
    m: Tensor,
    s: Tensor,
    left: Tensor,
    out_basis: Tensor,
    right: Tensor,
    in_basis: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One step of the rule `soap` for one token; gates are `[..., 1, 1]`."""
    m_mul = 0.95 * m
    m_mul_1 = 0.050000000000000044 * g
    m_1 = m_mul + m_mul_1
    left_eq = eq(step, 1)
    left_transpose = g.mT
    left_matmul = g @ left_transpose
    left_1 = where(left_eq, left_matmul, left)
    right_eq = eq(step, 1)
    right_transpose = g.mT
    right_matmul = right_transpose @ g
    right_1 = where(right_eq, right_matmul, right)
    out_basis_eq = eq(step, 1)
    out_basis_eigenbasis = eigenbasis(left_1)
    out_basis_1 = where(out_basis_eq, out_basis_eigenbasis, out_basis)
    in_basis_eq = eq(step, 1)
    in_basis_eigenbasis = eigenbasis(right_1)
    in_basis_1 = where(in_basis_eq, in_basis_eigenbasis, in_basis)
    s_mul = 0.95 * s
    s_transpose = out_basis_1.mT
    s_matmul = s_transpose @ g
    s_matmul_1 = s_matmul @ in_basis_1
    s_pow = s_matmul_1**2
    s_mul_1 = 0.050000000000000044 * s_pow
    s_1 = s_mul + s_mul_1
    n_transpose = out_basis_1.mT
    n_matmul = n_transpose @ m_1
    n_matmul_1 = n_matmul @ in_basis_1
    n_unbias = unbias(n_matmul_1, 0.95, step)
    n_unbias_1 = unbias(s_1, 0.95, step)
    n_sqrt = torch.sqrt(n_unbias_1)
    n_add = n_sqrt + 1e-08
    n = n_unbias / n_add
    W_mul = 1.0 * W
    W_matmul = out_basis_1 @ n
    W_transpose = in_basis_1.mT
    W_matmul_1 = W_matmul @ W_transpose
    W_mul_1 = 0.1 * W_matmul_1
    W_1 = W_mul - W_mul_1
    left_mul = 0.95 * left_1
    left_mul_1 = 0.050000000000000044 * g
    left_transpose_1 = g.mT
    left_matmul_1 = left_mul_1 @ left_transpose_1
    left_2 = left_mul + left_matmul_1
    right_mul = 0.95 * right_1
    right_transpose_1 = g.mT
    right_mul_1 = 0.050000000000000044 * right_transpose_1
    right_matmul_1 = right_mul_1 @ g
    right_2 = right_mul + right_matmul_1
    out_basis_matmul = left_2 @ out_basis_1
    out_basis_2 = orthonormal(out_basis_matmul)
    in_basis_matmul = right_2 @ in_basis_1
    in_basis_2 = orthonormal(in_basis_matmul)
    in_basis_multiple_of = multiple_of(step, of=10)
    in_basis_where = where(in_basis_multiple_of, out_basis_2, out_basis_1)
    in_basis_where_1 = where(in_basis_multiple_of, in_basis_2, in_basis_1)
    return W_1, m_1, s_1, left_2, in_basis_where, right_2, in_basis_where_1


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other: `M`: rule `soap` is not linear in the weight, its gradient
    and its memories).
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
                    "m.weight": self.zeros(batch, 8, 8),
                    "s.weight": self.zeros(batch, 8, 8),
                    "left.weight": self.zeros(batch, 8, 8),
                    "out_basis.weight": self.zeros(batch, 8, 8),
                    "right.weight": self.zeros(batch, 8, 8),
                    "in_basis.weight": self.zeros(batch, 8, 8),
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
        M_m_weight = state["M"]["slots"]["m.weight"]
        M_s_weight = state["M"]["slots"]["s.weight"]
        M_left_weight = state["M"]["slots"]["left.weight"]
        M_out_basis_weight = state["M"]["slots"]["out_basis.weight"]
        M_right_weight = state["M"]["slots"]["right.weight"]
        M_in_basis_weight = state["M"]["slots"]["in_basis.weight"]
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
                M_m_weight_next,
                M_s_weight_next,
                M_left_weight_next,
                M_out_basis_weight_next,
                M_right_weight_next,
                M_in_basis_weight_next,
            ) = soap(
                M_weight,
                M_dy_weight.mT @ M_x_weight,
                next_step(M_count, M_weight),
                M_m_weight,
                M_s_weight,
                M_left_weight,
                M_out_basis_weight,
                M_right_weight,
                M_in_basis_weight,
            )
            M_weight_next = M_weight_step
            M_weight = hold(live, M_weight_next, M_weight)
            M_m_weight = hold(live, M_m_weight_next, M_m_weight)
            M_s_weight = hold(live, M_s_weight_next, M_s_weight)
            M_left_weight = hold(live, M_left_weight_next, M_left_weight)
            M_out_basis_weight = hold(live, M_out_basis_weight_next, M_out_basis_weight)
            M_right_weight = hold(live, M_right_weight_next, M_right_weight)
            M_in_basis_weight = hold(live, M_in_basis_weight_next, M_in_basis_weight)
            M_count = tick(M_count, live)
            M_weight_seen = choose(M_ends_16[t], M_weight, M_weight_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 1, self.zeros(x.shape[0], 0, 8), mask)
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {
                "m.weight": M_m_weight,
                "s.weight": M_s_weight,
                "left.weight": M_left_weight,
                "out_basis.weight": M_out_basis_weight,
                "right.weight": M_right_weight,
                "in_basis.weight": M_in_basis_weight,
            },
            "count": M_count,
        }
        return y_2, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
