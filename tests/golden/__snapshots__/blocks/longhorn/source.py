"""`longhorn`, compiled by nldsl from specs/blocks/longhorn.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_scan import scan_memory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, linear, outer, scaled, sum, times_silu
from nldsl.runtime.token import tick_all
from torch import Tensor


class Longhorn(Module):
    """`longhorn(x)` with expand = 2, rank = 4, state = 16, window = 4.

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
        self.declare("beta.linear.weight", (64, 4), "matrix", normal(0.5))
        self.declare("beta.linear.bias", (64,), "rest", constant(0.0))
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
        r, k, q = r_linear.split((4, 16, 16), -1)
        beta = torch.sigmoid(linear(r, self.beta.linear.weight, self.beta.linear.bias))
        delta = beta / (1 + scaled(sum(k**2)[..., None], beta))
        D = self.D.weight.weight
        keep = 1 - outer(delta, k**2)
        S_memory = scan_memory(
            state["S"]["running"]["weight"].unsqueeze(1),
            (Write((Piece(along=k.unsqueeze(2), add=(delta * u).unsqueeze(2)),), Gate(keep.unsqueeze(2))),),
            ((q.unsqueeze(2), 1),),
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
    """The compiled `longhorn`, its parameters drawn from `seed`."""
    return Layer(Longhorn().initialise(seed), "longhorn")
