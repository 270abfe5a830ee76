"""`hgrn2`, compiled by nldsl from specs/blocks/hgrn2.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import linear, merge, norm, split
from nldsl.runtime.token import tick_all
from torch import Tensor
from torch.nn import functional


class Hgrn2(Module):
    """`hgrn2(x)` with heads = 2, lower = 0.

    S: linear_channel (the gradient of `dot` with `gd` does not depend on the memory; gates per key
    channel).
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
        f_linear = linear(x, self.f.linear.weight)
        f = 0 + 1 * torch.sigmoid(split(f_linear, n=2))
        f__log_0 = split(f_linear, n=2)
        f__log = functional.logsigmoid(f__log_0)
        v = linear(x, self.v.linear.weight)
        S_memory = MatrixMemory(
            state["S"]["running"]["weight"],
            (Write((Piece(along=1 - f, add=split(v, n=2)),), Gate(log=f__log)),),
            mask=mask,
        )
        out_S = S_memory.read(q, at=1)
        new["S"] = {"running": {"weight": S_memory.state}, "count": tick_all(state["S"]["count"], mask, x)}
        out = linear(norm(merge(out_S), self.out.norm.weight, eps=1e-06), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `hgrn2`, its parameters drawn from `seed`."""
    return Layer(Hgrn2().initialise(seed), "hgrn2")
