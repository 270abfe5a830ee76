"""`linear_attention`, compiled by nldsl from specs/models/linear_attention.nl.  Edit the specification,
not this file.
"""

from __future__ import annotations

from typing import Any

from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import l2norm, linear, merge, norm, split
from nldsl.runtime.recurrence import linear_recurrence
from nldsl.runtime.token import tick_all
from torch import Tensor


class LinearAttention(Module):
    """`linear_attention(x)` with heads = 2.

    S: linear (the gradient of `dot` does not depend on the memory).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"S": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)}}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q = l2norm(split(linear(x, self.q.linear.weight), n=2), eps=1e-06)
        k = l2norm(split(linear(x, self.k.linear.weight), n=2), eps=1e-06)
        v = linear(x, self.v.linear.weight)
        S_write_split = split(v, n=2)
        S_state = state["S"]["running"]["weight"]
        S_add = S_write_split
        out_S, S_next = linear_recurrence(q, k, S_add, S_state, read="after", mask=mask)
        new["S"] = {"running": {"weight": S_next}, "count": tick_all(state["S"]["count"], mask, x)}
        out = linear(merge(norm(out_S, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `linear_attention`, its parameters drawn from `seed`."""
    return Layer(LinearAttention().initialise(seed), "linear_attention")
