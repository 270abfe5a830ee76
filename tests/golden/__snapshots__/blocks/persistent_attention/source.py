"""`persistent_attention`, compiled by nldsl from specs/blocks/persistent_attention.nl.  Edit the
specification, not this file.
"""

from __future__ import annotations

from typing import Any

from nldsl.runtime.attention import attention
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.ops import linear, merge, rope, split
from torch import Tensor


class PersistentAttention(Module):
    """`persistent_attention(x)` with base = 10000, heads = 2, persistent = 4, window = 64.

    A: attention (softmax memory: scaled dot-product attention over the cached keys and values).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("A_write.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("A_write.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("A.keys", (2, 4, 16), "rest", normal(0.25))
        self.declare("A.values", (2, 4, 16), "rest", normal(0.25))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "A_write.rope": {"count": self.counter(batch)},
            "out.rope": {"count": self.counter(batch)},
            "A": {"keys": self.zeros(batch, 0, 2, 16), "values": self.zeros(batch, 0, 2, 16), "valid": None},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        A_write_rope, new["A_write.rope"] = rope(
            split(linear(x, self.A_write.linear.weight), n=2),
            base=10000,
            state=state["A_write.rope"],
            mask=mask,
        )
        A_write_split_1 = split(linear(x, self.A_write.linear_2.weight), n=2)
        out_rope, new["out.rope"] = rope(
            split(linear(x, self.out.linear.weight), n=2), base=10000, state=state["out.rope"], mask=mask
        )
        out_A, new["A"] = attention(
            out_rope,
            A_write_rope,
            A_write_split_1,
            state["A"],
            mask=mask,
            scale=0.25,
            window=64,
            start=(self.A.keys, self.A.values),
        )
        out = linear(merge(out_A), self.out.linear_2.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `persistent_attention`, its parameters drawn from `seed`."""
    return Layer(PersistentAttention().initialise(seed), "persistent_attention")
