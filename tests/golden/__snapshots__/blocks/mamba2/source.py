"""`mamba2`, compiled by nldsl from specs/blocks/mamba2.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, linear, merge, norm, scaled, share, softplus, split, times_silu
from nldsl.runtime.recurrence import linear_recurrence
from nldsl.runtime.token import tick_all
from torch import Tensor


class Mamba2(Module):
    """`mamba2(x)` with expand = 2, heads = 2, state = 16, window = 4.

    S: linear (the gradient of `dot` does not depend on the memory).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("z.linear.weight", (64, 32), "matrix", normal(0.1767766952966369))
        self.declare("u.linear.weight", (96, 32), "matrix", normal(0.1767766952966369))
        self.declare("u.conv.weight", (96, 4), "rest", normal(0.5))
        self.declare("u.conv.bias", (96,), "rest", constant(0.0))
        self.declare("dt.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("dt.linear.bias", (2,), "rest", constant(0.0))
        self.declare("A.weight.weight", (2,), "rest", normal(0.7071067811865476))
        self.declare("D.weight.weight", (2,), "rest", normal(0.7071067811865476))
        self.declare("out.norm.weight", (64,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 64), "matrix", normal(0.125))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "u.conv": {"tail": self.zeros(batch, 3, 96)},
            "S": {"running": {"weight": self.zeros(batch, 2, 32, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        z = linear(x, self.z.linear.weight)
        u_conv_silu, new["u.conv"] = conv(
            linear(x, self.u.linear.weight),
            self.u.conv.weight,
            self.u.conv.bias,
            state=state["u.conv"],
            mask=mask,
            activation="silu",
        )
        u = u_conv_silu
        v, b, c = u.split((64, 16, 16), -1)
        dt = softplus(linear(x, self.dt.linear.weight, self.dt.linear.bias))
        A = self.A.weight.weight
        D = self.D.weight.weight
        alpha_mul = -dt * torch.exp(A)
        S_write_share = share(b, n=2)
        S_write_split = split(v, n=2)
        y_share = share(c, n=2)
        S_state = state["S"]["running"]["weight"]
        S_add = scaled(dt[..., None], S_write_split)
        y_S, S_next = linear_recurrence(
            y_share, S_write_share, S_add, S_state, log_decay=alpha_mul, read="after", mask=mask
        )
        new["S"] = {"running": {"weight": S_next}, "count": tick_all(state["S"]["count"], mask, x)}
        y = merge(y_S + scaled(D[:, None], split(v, n=2)))
        out = linear(norm(times_silu(y, z), self.out.norm.weight, eps=1e-06), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `mamba2`, its parameters drawn from `seed`."""
    return Layer(Mamba2().initialise(seed), "mamba2")
