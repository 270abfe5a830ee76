"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.memory import decay_write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.ops import silu_pullback
from torch import Tensor
from torch.nn import functional


def perceptron(z: Tensor, W2: Tensor, W1: Tensor) -> Tensor:
    """The map `perceptron`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_silu = functional.silu(out_matmul)
    out = out_silu @ W1.mT
    return out


def perceptron_l2_gradient(
    key: Tensor, target: Tensor, W2: Tensor, W1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `perceptron`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    sub = silu @ W1.mT - target
    return key, silu_pullback(sub @ W1, matmul), silu, sub


class Probe(Module):
    """`probe(x)`.

    M: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("M.W2", (64, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.W1", (8, 64), "matrix", normal(0.125))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "committed": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self,
        x: Tensor,
        M_W2_seen: Tensor,
        M_W1_seen: Tensor,
        M_W2: Tensor,
        M_W1: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        y = perceptron(x, M_W2_seen, M_W1_seen)
        x_W2, dy_W2, x_W1, dy_W1 = perceptron_l2_gradient(x, x, M_W2_seen, M_W1_seen)
        rate_W2 = x_W2.new_full(x_W2.shape[:-1], 0.1)
        M_W2_next = decay_write(M_W2, x_W2, dy_W2, rate=rate_W2, valid=valid)
        rate_W1 = x_W1.new_full(x_W1.shape[:-1], 0.1)
        M_W1_next = decay_write(M_W1, x_W1, dy_W1, rate=rate_W1, valid=valid)
        return y, M_W2_next, M_W1_next

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        x_cut = grid.cut(x, "vector")
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_seen = state["M"]["committed"]["W2"]
        M_W1_seen = state["M"]["committed"]["W1"]
        y_all = []
        for n in range(len(grid)):
            y_n, M_W2_new, M_W1_new = self._step_M(x_cut[n], M_W2_seen, M_W1_seen, M_W2, M_W1, grid.valid[n])
            y_all.append(y_n)
            M_W2 = M_W2_new
            M_W1 = M_W1_new
            M_W2_seen = choose(grid.ends(16)[n], M_W2, M_W2_seen)
            M_W1_seen = choose(grid.ends(16)[n], M_W1, M_W1_seen)
        y = grid.join(y_all, "vector")
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "committed": {"W2": M_W2_seen, "W1": M_W1_seen},
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
