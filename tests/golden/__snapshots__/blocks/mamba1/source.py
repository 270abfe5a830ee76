"""`mamba1`, compiled by nldsl from specs/blocks/mamba1.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, index, linear, outer, parts, softplus
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


class Mamba1(Module):
    """`mamba1(x)` with expand = 2, rank = 4, state = 16, window = 4.

    S: sequential (one token after the other).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("z.linear.weight", (64, 32), "matrix", normal(0.1767766952966369))
        self.declare("u.linear.weight", (64, 32), "matrix", normal(0.1767766952966369))
        self.declare("u.conv.weight", (64, 4), "rest", normal(0.5))
        self.declare("u.conv.bias", (64,), "rest", constant(0.0))
        self.declare("r.linear.weight", (36, 64), "matrix", normal(0.125))
        self.declare("dt.linear.weight", (64, 4), "matrix", normal(0.5))
        self.declare("dt.linear.bias", (64,), "rest", constant(0.0))
        self.declare("A.weight.weight", (64, 16), "matrix", normal(0.25))
        self.declare("D.weight.weight", (64,), "rest", normal(0.125))
        self.declare("out.linear.weight", (32, 64), "matrix", normal(0.125))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "u.conv": {"tail": self.zeros(batch, 3, 64)},
            "S": {"running": {"weight": self.zeros(batch, 64, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        z = linear(x, self.z.linear.weight)
        u_conv, new["u.conv"] = conv(
            linear(x, self.u.linear.weight),
            self.u.conv.weight,
            self.u.conv.bias,
            state=state["u.conv"],
            mask=mask,
        )
        u = functional.silu(u_conv)
        r_linear = linear(u, self.r.linear.weight)
        r = parts(r_linear, index=0, sizes=(4, 16, 16))
        b = parts(r_linear, index=1, sizes=(4, 16, 16))
        c = parts(r_linear, index=2, sizes=(4, 16, 16))
        dt = softplus(linear(r, self.dt.linear.weight, self.dt.linear.bias))
        A = self.A.weight.weight
        D = self.D.weight.weight
        decay_add = 0 * index(size=16, like=x) + 1
        decay_add = decay_add.expand(*x.shape[:2], 16)
        decay = torch.exp(-outer(dt, decay_add) * torch.exp(A))
        S_write_mul = dt * u
        S_weight = state["S"]["running"]["weight"]
        S_count = state["S"]["count"]
        out_S_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            b_t = b[:, t : t + 1]
            S_write_mul_t = S_write_mul[:, t : t + 1]
            decay_t = decay[:, t : t + 1]
            c_t = c[:, t : t + 1]
            S_x_weight, S_dy_weight = matrix_dot_gradient(b_t, S_write_mul_t, S_weight)
            S_weight_next = gd(S_weight, S_dy_weight.mT @ S_x_weight) + (decay_t[:, 0] - 1.0) * S_weight
            out_S = matrix(c_t, S_weight_next)
            S_weight = hold(live, S_weight_next, S_weight)
            S_count = tick(S_count, live)
            out_S_all.append(out_S)
        out_S_2 = join_tokens(out_S_all, 1, self.zeros(x.shape[0], 0, 64))
        new["S"] = {"running": {"weight": S_weight}, "count": S_count}
        out = linear((out_S_2 + D * u) * functional.silu(z), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `mamba1`, its parameters drawn from `seed`."""
    return Layer(Mamba1().initialise(seed), "mamba1")
