"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import inverse_root, lt, where
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


def shampoo(
    W: Tensor, g: Tensor, step: Tensor, m: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One step of the rule `shampoo` for one token; gates are `[..., 1, 1]`."""
    left_transpose = g.mT
    left_matmul = g @ left_transpose
    left_1 = left + left_matmul
    right_transpose = g.mT
    right_matmul = right_transpose @ g
    right_1 = right + right_matmul
    out_root_1 = inverse_root(left_1, root=4, eps=0.0001)
    in_root_1 = inverse_root(right_1, root=4, eps=0.0001)
    first = lt(step, 1)
    u_matmul = out_root_1 @ g
    u_matmul_1 = u_matmul @ in_root_1
    u = where(first, g, u_matmul_1)
    m_mul = 0 * m
    m_1 = m_mul + u
    W_mul = 0.1 * m_1
    W_1 = W - W_mul
    return W_1, m_1, left_1, out_root_1, right_1, in_root_1


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other: `M`: rule `shampoo` is not linear in the weight, its
    gradient and its memories).
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
                    "left.weight": self.zeros(batch, 8, 8),
                    "out_root.weight": self.zeros(batch, 8, 8),
                    "right.weight": self.zeros(batch, 8, 8),
                    "in_root.weight": self.zeros(batch, 8, 8),
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
        M_left_weight = state["M"]["slots"]["left.weight"]
        M_out_root_weight = state["M"]["slots"]["out_root.weight"]
        M_right_weight = state["M"]["slots"]["right.weight"]
        M_in_root_weight = state["M"]["slots"]["in_root.weight"]
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
                M_left_weight_next,
                M_out_root_weight_next,
                M_right_weight_next,
                M_in_root_weight_next,
            ) = shampoo(
                M_weight,
                M_dy_weight.mT @ M_x_weight,
                next_step(M_count, M_weight),
                M_m_weight,
                M_left_weight,
                M_right_weight,
            )
            M_weight_next = M_weight_step
            M_weight = hold(live, M_weight_next, M_weight)
            M_m_weight = hold(live, M_m_weight_next, M_m_weight)
            M_left_weight = hold(live, M_left_weight_next, M_left_weight)
            M_out_root_weight = hold(live, M_out_root_weight_next, M_out_root_weight)
            M_right_weight = hold(live, M_right_weight_next, M_right_weight)
            M_in_root_weight = hold(live, M_in_root_weight_next, M_in_root_weight)
            M_count = tick(M_count, live)
            M_weight_seen = choose(M_ends_16[t], M_weight, M_weight_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 1, self.zeros(x.shape[0], 0, 8), mask)
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {
                "m.weight": M_m_weight,
                "left.weight": M_left_weight,
                "out_root.weight": M_out_root_weight,
                "right.weight": M_right_weight,
                "in_root.weight": M_in_root_weight,
            },
            "count": M_count,
        }
        return y_2, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
