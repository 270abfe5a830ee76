"""`titans_linear`, compiled by nldsl from specs/blocks/titans_linear.nl.  Edit the specification, not this
file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Momentum, Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, scaled, split, times_silu
from nldsl.runtime.token import tick_all
from torch import Tensor
from torch.nn import functional


class TitansLinear(Module):
    """`titans_linear(x)` with heads = 2, window = 4.

    M: filtered (`l2` with `momentum` is affine in the memory, of rank one along one key; momentum and
    decay are one scalar filter).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v.conv.bias", (32,), "rest", constant(0.0))
        self.declare("theta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("keep.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("keep.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"weight": self.zeros(batch, 2, 16, 16)},
                "slots": {"m.weight": self.zeros(batch, 2, 16, 16)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q_conv_silu, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
            activation="silu",
        )
        q = l2norm(split(q_conv_silu, n=2), eps=1e-06)
        k_conv_silu, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
            activation="silu",
        )
        k = l2norm(split(k_conv_silu, n=2), eps=1e-06)
        v_conv_silu, new["v.conv"] = conv(
            linear(x, self.v.linear.weight),
            self.v.conv.weight,
            self.v.conv.bias,
            state=state["v.conv"],
            mask=mask,
            activation="silu",
        )
        v = v_conv_silu
        theta = torch.sigmoid(linear(x, self.theta.linear.weight))
        eta_linear = linear(x, self.eta.linear.weight)
        keep__log_0 = -linear(x, self.keep.linear.weight, self.keep.linear.bias)
        keep__log = functional.logsigmoid(keep__log_0)
        M_write_split = split(v, n=2)
        eta__log_beta = functional.logsigmoid(eta_linear)
        M_memory = MatrixMemory(
            state["M"]["running"]["weight"],
            (
                Write(
                    (Piece(along=k, add=scaled(theta[..., None], M_write_split), seen=k, erase=theta),),
                    Gate(log=keep__log),
                ),
            ),
            mask=mask,
            momentum=Momentum(Gate(log=eta__log_beta), None, state["M"]["slots"]["m.weight"]),
        )
        out_M = M_memory.read(q, at=1)
        new["M"] = {
            "running": {"weight": M_memory.state},
            "slots": {"m.weight": M_memory.momentum},
            "count": tick_all(state["M"]["count"], mask, x),
        }
        out = linear(
            times_silu(
                merge(norm(out_M, self.out.norm.weight, eps=1e-06)), linear(x, self.out.linear.weight)
            ),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `titans_linear`, its parameters drawn from `seed`."""
    return Layer(TitansLinear().initialise(seed), "titans_linear")
