"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.course import Course, Impulse
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from torch import Tensor


def linear(z: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """The map `linear`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W.mT
    out = out_matmul + b
    return out


def linear_l2_gradient(key: Tensor, target: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `linear`, row by row.

    Returns x_W, dy_W, g_b: `x_W` is the input of the weight `W`, `dy_W` the gradient at its output, and
    the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    sub = b + key @ W.mT - target
    return key, sub, sub


class Probe(Module):
    """`probe(x)`.

    M: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("M.W", (8, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.b", (8,), "rest", normal(0.3535533905932738))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "committed": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self, x: Tensor, M_W_seen: Tensor, M_b_seen: Tensor, M_W: Tensor, M_b: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        y = linear(x, M_W_seen, M_b_seen)
        x_W, dy_W, g_b = linear_l2_gradient(x, x, M_W_seen, M_b_seen)
        rate_W = x_W.new_full(x_W.shape[:-1], 0.1)
        M_W_course = Course(M_W, (Impulse(x_W, dy_W, rate=rate_W),), valid=valid)
        rate_b = g_b.new_ones((*g_b.shape[:-1], 1)).new_full(
            g_b.new_ones((*g_b.shape[:-1], 1)).shape[:-1], 0.1
        )
        M_b_course = Course(
            M_b.mT, (Impulse(g_b.new_ones((*g_b.shape[:-1], 1)), g_b, rate=rate_b),), valid=valid
        )
        M_W_next = M_W_course.end()
        M_b_next = M_b_course.end()
        return y, M_W_next, M_b_next.mT

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        x_cut = grid.cut(x, "vector")
        M_W = state["M"]["running"]["W"]
        M_b = state["M"]["running"]["b"].unsqueeze(-2)
        M_W_seen = state["M"]["committed"]["W"]
        M_b_seen = state["M"]["committed"]["b"].unsqueeze(-2)
        y_all = []
        for n in range(len(grid)):
            y_n, M_W_new, M_b_new = self._step_M(x_cut[n], M_W_seen, M_b_seen, M_W, M_b, grid.valid[n])
            y_all.append(y_n)
            M_W = M_W_new
            M_b = M_b_new
            M_W_seen = choose(grid.ends(16)[n], M_W, M_W_seen)
            M_b_seen = choose(grid.ends(16)[n], M_b, M_b_seen)
        y = grid.join(y_all, "vector")
        new["M"] = {
            "running": {"W": M_W, "b": M_b.squeeze(-2)},
            "committed": {"W": M_W_seen, "b": M_b_seen.squeeze(-2)},
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
