"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.course_states import Mixing, StatesCourse, Taken
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module
from nldsl.runtime.ops import multiple_of, where
from nldsl.runtime.token import step_numbers
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
                "slots": {"drift.weight": self.zeros(batch, 8, 8)},
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self,
        x: Tensor,
        step_number: Tensor,
        M_weight_seen: Tensor,
        M_weight: Tensor,
        M_drift_weight: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        y = matrix(x, M_weight_seen)
        x_weight, dy_weight = matrix_l2_gradient(x, x, M_weight_seen)
        multiple_of_ = multiple_of(step_number[..., None], of=5)
        where_ = where(multiple_of_, -0.5, 0.0)
        where_2 = where(multiple_of_, 0.0, 1.0)
        where_3 = where(multiple_of_, -0.05, -0.1)
        neg = -where_3
        where_4 = where(multiple_of_, 0.0, -0.1)
        neg_2 = -where_4
        mixing = Mixing(
            x,
            ((1.0, where_.squeeze(-1)), (0.0, where_2.squeeze(-1))),
            ((neg.squeeze(-1), neg_2.squeeze(-1)),),
            valid,
        )
        M_weight_course = StatesCourse(
            M_weight, (M_drift_weight,), (Taken(x_weight, dy_weight, 0),), (), mixing
        )
        M_weight_next, M_drift_weight_next = M_weight_course.close()
        return y, M_weight_next, M_drift_weight_next

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        x_cut = grid.cut(x, "vector")
        step_number = step_numbers(state["M"]["count"], mask, x)
        step_number_cut = grid.cut(step_number, "scalar")
        M_weight = state["M"]["running"]["weight"]
        M_weight_seen = state["M"]["committed"]["weight"]
        M_drift_weight = state["M"]["slots"]["drift.weight"]
        y_all = []
        for n in range(len(grid)):
            y_n, M_weight_new, M_drift_weight_new = self._step_M(
                x_cut[n], step_number_cut[n], M_weight_seen, M_weight, M_drift_weight, grid.valid[n]
            )
            y_all.append(y_n)
            M_weight = M_weight_new
            M_drift_weight = M_drift_weight_new
            M_weight_seen = choose(grid.ends(16)[n], M_weight, M_weight_seen)
        y = grid.join(y_all, "vector")
        new["M"] = {
            "running": {"weight": M_weight},
            "committed": {"weight": M_weight_seen},
            "slots": {"drift.weight": M_drift_weight},
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
