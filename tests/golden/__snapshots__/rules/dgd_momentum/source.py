"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.course import Course, Impulse, Momentum, momentum_filter
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
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


class Probe(Module):
    """`probe(x)`.

    M: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel).
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

    def _step_M(
        self, x: Tensor, M_weight_seen: Tensor, M_weight: Tensor, M_m_weight: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        y = matrix(x, M_weight_seen)
        x_weight, dy_weight = matrix_l2_gradient(x, x, M_weight_seen)
        beta_weight = x_weight.new_full(x_weight.shape[:-1], 0.5)
        slot_rate_weight = (0.5 * (1.0 / (10.0 + (x_weight * x_weight).sum(-1, keepdim=True)))).squeeze(-1)
        read_weight = x_weight.new_full(x_weight.shape[:-1], 1.0)
        slot_erase_weight = (0.5 * (1.0 / (10.0 + (x_weight * x_weight).sum(-1, keepdim=True)))).squeeze(-1)
        momentum_filter_ = momentum_filter(
            beta_weight, slot_rate_weight, read_weight, slot_erase_weight, valid=valid
        )
        M_weight_course = Course(
            M_weight,
            (Impulse(x_weight, dy_weight, momentum=Momentum(M_m_weight, momentum_filter_)),),
            valid=valid,
        )
        M_weight_next, M_m_weight_next = M_weight_course.close()
        return y, M_weight_next, M_m_weight_next

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        x_cut = grid.cut(x, "vector")
        M_weight = state["M"]["running"]["weight"]
        M_weight_seen = state["M"]["committed"]["weight"]
        M_m_weight = state["M"]["slots"]["m.weight"]
        y_all = []
        for n in range(len(grid)):
            y_n, M_weight_new, M_m_weight_new = self._step_M(
                x_cut[n], M_weight_seen, M_weight, M_m_weight, grid.valid[n]
            )
            y_all.append(y_n)
            M_weight = M_weight_new
            M_m_weight = M_m_weight_new
            M_weight_seen = choose(grid.ends(16)[n], M_weight, M_weight_seen)
        y = grid.join(y_all, "vector")
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {"m.weight": M_m_weight},
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
