"""`deltaproduct`, compiled by nldsl from specs/blocks/deltaproduct.nl.  Edit the specification, not this
file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, scaled, split
from nldsl.runtime.token import tick_all
from torch import Tensor


class Deltaproduct(Module):
    """`deltaproduct(x)` with heads = 2, steps = (1, 2), window = 4.

    S: delta_block (`l2` with `gd` is affine in the memory, of rank 2 along the keys).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k[0].linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k[0].conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k[0].conv.bias", (32,), "rest", constant(0.0))
        self.declare("v[0].linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v[0].conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v[0].conv.bias", (32,), "rest", constant(0.0))
        self.declare("beta[0].linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("k[1].linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k[1].conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k[1].conv.bias", (32,), "rest", constant(0.0))
        self.declare("v[1].linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v[1].conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v[1].conv.bias", (32,), "rest", constant(0.0))
        self.declare("beta[1].linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k[0].conv": {"tail": self.zeros(batch, 3, 32)},
            "v[0].conv": {"tail": self.zeros(batch, 3, 32)},
            "k[1].conv": {"tail": self.zeros(batch, 3, 32)},
            "v[1].conv": {"tail": self.zeros(batch, 3, 32)},
            "S": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
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
        k_conv_silu, new["k[0].conv"] = conv(
            linear(x, self.k[0].linear.weight),
            self.k[0].conv.weight,
            self.k[0].conv.bias,
            state=state["k[0].conv"],
            mask=mask,
            activation="silu",
        )
        k = l2norm(split(k_conv_silu, n=2), eps=1e-06)
        v_conv_silu, new["v[0].conv"] = conv(
            linear(x, self.v[0].linear.weight),
            self.v[0].conv.weight,
            self.v[0].conv.bias,
            state=state["v[0].conv"],
            mask=mask,
            activation="silu",
        )
        v = v_conv_silu
        beta = 2 * torch.sigmoid(linear(x, self.beta[0].linear.weight))
        S_write_split = split(v, n=2)
        k_conv_1_silu, new["k[1].conv"] = conv(
            linear(x, self.k[1].linear.weight),
            self.k[1].conv.weight,
            self.k[1].conv.bias,
            state=state["k[1].conv"],
            mask=mask,
            activation="silu",
        )
        k_1 = l2norm(split(k_conv_1_silu, n=2), eps=1e-06)
        v_conv_1_silu, new["v[1].conv"] = conv(
            linear(x, self.v[1].linear.weight),
            self.v[1].conv.weight,
            self.v[1].conv.bias,
            state=state["v[1].conv"],
            mask=mask,
            activation="silu",
        )
        v_1 = v_conv_1_silu
        beta_1 = 2 * torch.sigmoid(linear(x, self.beta[1].linear.weight))
        S_memory = MatrixMemory(
            state["S"]["running"]["weight"],
            (
                Write((Piece(along=k, add=scaled(beta[..., None], S_write_split), seen=k, erase=beta),)),
                Write(
                    (
                        Piece(
                            along=k_1, add=scaled(beta_1[..., None], split(v_1, n=2)), seen=k_1, erase=beta_1
                        ),
                    ),
                ),
            ),
            mask=mask,
        )
        out_S = S_memory.read(q, at=2)
        new["S"] = {"running": {"weight": S_memory.state}, "count": tick_all(state["S"]["count"], mask, x)}
        out = linear(merge(norm(out_S, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `deltaproduct`, its parameters drawn from `seed`."""
    return Layer(Deltaproduct().initialise(seed), "deltaproduct")
