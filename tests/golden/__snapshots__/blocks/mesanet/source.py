"""`mesanet`, compiled by nldsl from specs/blocks/mesanet.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, scaled, softplus, split
from nldsl.runtime.token import tick_all
from torch import Tensor
from torch.nn import functional


class Mesanet(Module):
    """`mesanet(x)` with heads = 2, iterations = 8, window = 4.

    H, G: mesa (`H` and `G` are linear recurrences, and each token solves with its own state).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("ridge.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("beta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("gamma.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("gamma.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "H": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
            "G": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        ridge = split(0.25 + softplus(self.ridge.weight.weight), n=2) ** 0.5
        q_conv_silu, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
            activation="silu",
        )
        q = l2norm(split(q_conv_silu, n=2), eps=1e-06) / ridge
        k_conv_silu, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
            activation="silu",
        )
        k = l2norm(split(k_conv_silu, n=2), eps=1e-06) / ridge
        v = linear(x, self.v.linear.weight)
        beta = torch.sigmoid(linear(x, self.beta.linear.weight))
        gamma__log = functional.logsigmoid(linear(x, self.gamma.linear.weight, self.gamma.linear.bias))
        G_write_split = split(v, n=2)
        H_memory = MatrixMemory(
            state["H"]["running"]["weight"],
            (Write((Piece(along=k, add=scaled(beta[..., None], k)),), Gate(log=gamma__log)),),
            mask=mask,
        )
        G_memory = MatrixMemory(
            state["G"]["running"]["weight"],
            (Write((Piece(along=k, add=scaled(beta[..., None], G_write_split)),), Gate(log=gamma__log)),),
            mask=mask,
        )
        out_G = G_memory.read(H_memory.solve(q, at=1, ridge=1.0, iterations=8), at=1)
        new["H"] = {"running": {"weight": H_memory.state}, "count": tick_all(state["H"]["count"], mask, x)}
        new["G"] = {"running": {"weight": G_memory.state}, "count": tick_all(state["G"]["count"], mask, x)}
        out = linear(merge(norm(out_G, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `mesanet`, its parameters drawn from `seed`."""
    return Layer(Mesanet().initialise(seed), "mesanet")
