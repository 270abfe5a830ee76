"""`gla`, compiled by nldsl from specs/blocks/gla.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import linear, merge, norm, split, times_silu
from nldsl.runtime.token import tick_all
from torch import Tensor
from torch.nn import functional


class Gla(Module):
    """`gla(x)` with heads = 2, rank = 16, temper = 16.

    S: linear_channel (the gradient of `dot` with `gd` does not depend on the memory; gates per key
    channel).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (16, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.linear.weight", (16, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.weight", (16, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear_2.weight", (16, 16), "matrix", normal(0.25))
        self.declare("alpha.linear_2.bias", (16,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear.bias", (32,), "rest", constant(0.0))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"S": {"running": {"weight": self.zeros(batch, 2, 16, 8)}, "count": self.counter(batch)}}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q = split(linear(x, self.q.linear.weight), n=2) / 2.8284271247461903
        k = split(linear(x, self.k.linear.weight), n=2)
        v = linear(x, self.v.linear.weight)
        alpha__log = split(
            functional.logsigmoid(
                linear(
                    linear(x, self.alpha.linear.weight), self.alpha.linear_2.weight, self.alpha.linear_2.bias
                ),
            )
            / 16,
            n=2,
        )
        S_memory = MatrixMemory(
            state["S"]["running"]["weight"],
            (Write((Piece(along=k, add=split(v, n=2)),), Gate(log=alpha__log)),),
            mask=mask,
        )
        out_S = S_memory.read(q, at=1)
        new["S"] = {"running": {"weight": S_memory.state}, "count": tick_all(state["S"]["count"], mask, x)}
        out = linear(
            times_silu(
                merge(norm(out_S, self.out.norm.weight, eps=1e-06)),
                linear(x, self.out.linear.weight, self.out.linear.bias),
            ),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `gla`, its parameters drawn from `seed`."""
    return Layer(Gla().initialise(seed), "gla")
