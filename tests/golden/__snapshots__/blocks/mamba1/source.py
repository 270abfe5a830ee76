"""`mamba1`, compiled by nldsl from specs/blocks/mamba1.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_scan import scan_memory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, index, linear, outer, softplus, times_silu
from nldsl.runtime.token import tick_all
from torch import Tensor


class Mamba1(Module):
    """`mamba1(x)` with expand = 2, rank = 4, state = 16, window = 4.

    S: scan (the gradient of `dot` with `gd` does not depend on the memory; gates per element leave a
    scan over the tokens).
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
        u_conv_silu, new["u.conv"] = conv(
            linear(x, self.u.linear.weight),
            self.u.conv.weight,
            self.u.conv.bias,
            state=state["u.conv"],
            mask=mask,
            activation="silu",
        )
        u = u_conv_silu
        r_linear = linear(u, self.r.linear.weight)
        r, b, c = r_linear.split((4, 16, 16), -1)
        dt = softplus(linear(r, self.dt.linear.weight, self.dt.linear.bias))
        A = self.A.weight.weight
        D = self.D.weight.weight
        decay_add = 0 * index(size=16, like=x) + 1
        decay_add = decay_add.expand(*x.shape[:2], 16)
        S_memory = scan_memory(
            state["S"]["running"]["weight"].unsqueeze(1),
            (
                Write(
                    (Piece(along=b.unsqueeze(2), add=(dt * u).unsqueeze(2)),),
                    Gate(log=(-outer(dt, decay_add) * torch.exp(A)).unsqueeze(2)),
                ),
            ),
            ((c.unsqueeze(2), 1),),
            mask=mask,
        )
        out_S = S_memory.reads[0].squeeze(2)
        new["S"] = {
            "running": {"weight": S_memory.state.squeeze(1)},
            "count": tick_all(state["S"]["count"], mask, x),
        }
        out = linear(times_silu(out_S + D * u, z), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `mamba1`, its parameters drawn from `seed`."""
    return Layer(Mamba1().initialise(seed), "mamba1")
