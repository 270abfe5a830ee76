"""`comba`, compiled by nldsl from specs/blocks/comba.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, scaled, softplus, split, times_sigmoid
from nldsl.runtime.token import tick_all
from torch import Tensor


class Comba(Module):
    """`comba(x)` with heads = 2, window = 4.

    S: delta_block (`l2` with `gd` and `dot` with `gd` is affine in the memory, of rank one along one
    key).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v.conv.bias", (32,), "rest", constant(0.0))
        self.declare("B.weight.weight", (2,), "rest", normal(0.7071067811865476))
        self.declare("D.weight.weight", (2,), "rest", normal(0.7071067811865476))
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("beta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("A.weight.weight", (2,), "rest", normal(0.7071067811865476))
        self.declare("alpha.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "S": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
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
        B = self.B.weight.weight
        D = self.D.weight.weight
        q_conv_silu, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
            activation="silu",
        )
        q = l2norm(split(q_conv_silu, n=2), eps=1e-06) - scaled(D[:, None], k)
        beta = torch.sigmoid(linear(x, self.beta.linear.weight))
        erase = times_sigmoid(beta, B)
        A = self.A.weight.weight
        S_memory = MatrixMemory(
            state["S"]["running"]["weight"],
            (
                Gate(
                    log=-torch.exp(A) * softplus(linear(x, self.alpha.linear.weight, self.alpha.linear.bias))
                ),
                Write(
                    (
                        Piece(along=k, add=k.new_full((*k.shape[:-1], 16), 0.0), seen=k, erase=erase),
                        Piece(along=k, add=scaled(beta[..., None], split(v, n=2))),
                    ),
                ),
            ),
            mask=mask,
        )
        out_S = S_memory.read(q, at=2)
        new["S"] = {"running": {"weight": S_memory.state}, "count": tick_all(state["S"]["count"], mask, x)}
        out = linear(
            times_sigmoid(
                merge(norm(out_S, self.out.norm.weight, eps=1e-06)), linear(x, self.out.linear.weight)
            ),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `comba`, its parameters drawn from `seed`."""
    return Layer(Comba().initialise(seed), "comba")
