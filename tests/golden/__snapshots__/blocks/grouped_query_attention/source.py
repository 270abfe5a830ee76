"""`grouped_query_attention`, compiled by nldsl from specs/blocks/grouped_query_attention.nl.  Edit the
specification, not this file.
"""

from __future__ import annotations

from typing import Any

from nldsl.runtime.attention import attention
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.ops import linear, merge, rope, split
from torch import Tensor


class Attention(Module):
    """`attention(x)` with base = 10000, groups = 2, heads = 2, window = 0.

    A: attention (softmax memory: scaled dot-product attention over the cached keys and values).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.linear.weight", (16, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.linear.weight", (16, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.rope": {"count": self.counter(batch)},
            "k.rope": {"count": self.counter(batch)},
            "A": {"keys": self.zeros(batch, 0, 1, 16), "values": self.zeros(batch, 0, 1, 16), "valid": None},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q, new["q.rope"] = rope(
            split(linear(x, self.q.linear.weight), n=2), base=10000, state=state["q.rope"], mask=mask
        )
        k, new["k.rope"] = rope(
            split(linear(x, self.k.linear.weight), n=1), base=10000, state=state["k.rope"], mask=mask
        )
        v = split(linear(x, self.v.linear.weight), n=1)
        out_A, new["A"] = attention(q, k, v, state["A"], mask=mask, scale=0.25)
        out = linear(merge(out_A), self.out.linear.weight)
        return out, new


class GroupedQueryAttention(Module):
    """`grouped_query_attention(x)` with groups = 2, heads = 2."""

    def __init__(self) -> None:
        super().__init__()
        self.attach("attention", Attention())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"attention": self.attention.initial_state(batch)}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        out, new["attention"] = self.attention(x, state["attention"], mask)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `grouped_query_attention`, its parameters drawn from `seed`."""
    return Layer(GroupedQueryAttention().initialise(seed), "grouped_query_attention")
