"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.grid import choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import orthogonalize
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


def muon(W: Tensor, g: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the rule `muon` for one token; gates are `[..., 1, 1]`."""
    m_mul = 0.95 * m
    m_1 = m_mul + g
    d_mul = 0.95 * m_1
    d = g + d_mul
    W_mul = 1.0 * W
    W_orthogonalize = orthogonalize(d, iterations=5)
    W_mul_1 = 0.1 * W_orthogonalize
    W_1 = W_mul - W_mul_1
    return W_1, m_1


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other: `M`: rule `muon` is not linear in the weight, its gradient
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
            M_weight_step, M_m_weight_next = muon(M_weight, M_dy_weight.mT @ M_x_weight, M_m_weight)
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
