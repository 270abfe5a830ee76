"""`transformer`, compiled by nldsl from specs/models/transformer.nl.  Edit the specification, not this
file.
"""

from __future__ import annotations

from typing import Any

from nldsl.runtime.attention import attention
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import embed, head, linear, merge, norm, rope, split, times_silu
from torch import Tensor


class Attention(Module):
    """`attention(x)` with base = 10000, groups = 1, heads = 4, window = 0.

    A: attention (softmax memory: scaled dot-product attention over the cached keys and values).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("k.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("v.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("out.linear.weight", (256, 256), "matrix", normal(0.0625))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.rope": {"count": self.counter(batch)},
            "k.rope": {"count": self.counter(batch)},
            "A": {"keys": self.zeros(batch, 0, 4, 64), "values": self.zeros(batch, 0, 4, 64), "valid": None},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q, new["q.rope"] = rope(
            split(linear(x, self.q.linear.weight), n=4), base=10000, state=state["q.rope"], mask=mask
        )
        k, new["k.rope"] = rope(
            split(linear(x, self.k.linear.weight), n=4), base=10000, state=state["k.rope"], mask=mask
        )
        v = split(linear(x, self.v.linear.weight), n=4)
        out_A, new["A"] = attention(q, k, v, state["A"], mask=mask, scale=0.125)
        out = linear(merge(out_A), self.out.linear.weight)
        return out, new


class Swiglu(Module):
    """`swiglu(x)` with expand = 3."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("gate.linear.weight", (768, 256), "matrix", normal(0.0625))
        self.declare("out.linear.weight", (768, 256), "matrix", normal(0.0625))
        self.declare("out.linear_2.weight", (256, 768), "matrix", normal(0.03608439182435161))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        gate_raw = linear(x, self.gate.linear.weight)
        out = linear(times_silu(linear(x, self.out.linear.weight), gate_raw), self.out.linear_2.weight)
        return out, new


class TransformerBlocks(Module):
    """`transformer_blocks(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.norm.weight", (256,), "norm", constant(1.0))
        self.declare("x.norm_2.weight", (256,), "norm", constant(1.0))
        self.attach("attention", Attention())
        self.attach("swiglu", Swiglu())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"attention": self.attention.initial_state(batch)}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_attention, new["attention"] = self.attention(
            norm(x, self.x.norm.weight, eps=1e-06), state["attention"], mask
        )
        x_1 = x + x_attention
        x_swiglu, _ = self.swiglu(norm(x_1, self.x.norm_2.weight, eps=1e-06), state, mask)
        x_2 = x_1 + x_swiglu
        return x_2, new


class Transformer(Module):
    """`transformer(tokens)` with depth = 4, dim = 256, expand = 3, heads = 4, vocab = 256, window = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.embed.weight", (256, 256), "embedding", normal(1.0))
        self.declare("out.norm.weight", (256,), "norm", constant(1.0))
        self.declare("out.head.weight", (256, 256), "head", normal(0.0625))
        self.attach_repeated("blocks", [TransformerBlocks() for _ in range(4)])

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"blocks": [layer.initial_state(batch) for layer in self.blocks]}

    def forward(
        self, tokens: Tensor, state: dict[str, Any], mask: Tensor | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x = embed(tokens, self.x.embed.weight)
        x_1 = x
        layers = []
        for layer, before in zip(self.blocks, state["blocks"], strict=True):
            x_1, after = layer(x_1, before, mask)
            layers.append(after)
        new["blocks"] = layers
        out = head(norm(x_1, self.out.norm.weight, eps=1e-06), self.out.head.weight)
        return out, new


def build(seed: int = 0) -> Model:
    """The compiled `transformer`, its parameters drawn from `seed`."""
    return Model(Transformer().initialise(seed), "transformer", carry="trunc")
