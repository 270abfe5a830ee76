"""`hgrn2`, compiled by nldsl from specs/blocks/hgrn2.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import linear, merge, norm, split
from nldsl.runtime.token import hold, join_tokens, live_at, tick
from torch import Tensor
from torch.nn import functional


def matrix_dot_gradient(key: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `dot` at the map `matrix`, row by row.

    Returns x_weight, dy_weight: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    return key, -target


def gd(W: Tensor, g: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = 1 * g
    W_1 = W - W_mul
    return W_1


def matrix(z: Tensor, weight: Tensor) -> Tensor:
    """The map `matrix`, row by row: `[..., C, z] -> [..., C, y]`."""
    y = z @ weight.mT
    return y


class Hgrn2(Module):
    """`hgrn2(x)` with heads = 2, lower = 0.

    S: sequential (one token after the other).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("f.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.norm.weight", (32,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"S": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)}}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q = functional.silu(split(linear(x, self.q.linear.weight), n=2))
        f = 0 + 1 * torch.sigmoid(split(linear(x, self.f.linear.weight), n=2))
        v = linear(x, self.v.linear.weight)
        S_write_sub = 1 - f
        S_write_split = split(v, n=2)
        S_write_sub_first = S_write_sub.transpose(1, 2)
        S_write_split_first = S_write_split.transpose(1, 2)
        f_first = f.transpose(1, 2)
        q_first = q.transpose(1, 2)
        S_weight = state["S"]["running"]["weight"]
        S_count = state["S"]["count"]
        out_S_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            S_write_sub_t = S_write_sub_first[:, :, t : t + 1]
            S_write_split_t = S_write_split_first[:, :, t : t + 1]
            f_t = f_first[:, :, t : t + 1]
            q_t = q_first[:, :, t : t + 1]
            S_x_weight, S_dy_weight = matrix_dot_gradient(S_write_sub_t, S_write_split_t, S_weight)
            S_weight_next = gd(S_weight, S_dy_weight.mT @ S_x_weight) + (f_t - 1.0) * S_weight
            out_S = matrix(q_t, S_weight_next)
            S_weight = hold(live, S_weight_next, S_weight)
            S_count = tick(S_count, live)
            out_S_all.append(out_S)
        out_S_2 = join_tokens(out_S_all, 2, self.zeros(x.shape[0], 0, 2, 16))
        new["S"] = {"running": {"weight": S_weight}, "count": S_count}
        out = linear(norm(merge(out_S_2), self.out.norm.weight, eps=1e-06), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `hgrn2`, its parameters drawn from `seed`."""
    return Layer(Hgrn2().initialise(seed), "hgrn2")
