"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.token import commit, hold, join_tokens, live_at, tick
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


def gd(W: Tensor, g: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = 0.1 * g
    W_1 = W - W_mul
    return W_1


class Probe(Module):
    """`probe(x)`.

    M: sequential (one token after the other).
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

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        M_W = state["M"]["running"]["W"]
        M_b = state["M"]["running"]["b"].unsqueeze(-2)
        M_W_seen = state["M"]["committed"]["W"]
        M_b_seen = state["M"]["committed"]["b"].unsqueeze(-2)
        M_count = state["M"]["count"]
        y_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            x_t = x[:, t : t + 1]
            y = linear(x_t, M_W_seen, M_b_seen)
            M_x_W, M_dy_W, M_g_b = linear_l2_gradient(x_t, x_t, M_W_seen, M_b_seen)
            M_W_next = gd(M_W, M_dy_W.mT @ M_x_W)
            M_b_next = gd(M_b, M_g_b)
            M_W = hold(live, M_W_next, M_W)
            M_b = hold(live, M_b_next, M_b)
            M_count = tick(M_count, live)
            M_W_seen = commit(M_count, 16, live, M_W, M_W_seen)
            M_b_seen = commit(M_count, 16, live, M_b, M_b_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 1, self.zeros(x.shape[0], 0, 8))
        new["M"] = {
            "running": {"W": M_W, "b": M_b.squeeze(-2)},
            "committed": {"W": M_W_seen, "b": M_b_seen.squeeze(-2)},
            "count": M_count,
        }
        return y_2, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
