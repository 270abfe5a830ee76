"""`linear_attention`, compiled by nldsl from specs/models/linear_attention.nl.  Edit the specification,
not this file.
"""

from __future__ import annotations

from typing import Any

from nldsl.runtime.model import Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import embed, head, l2norm, linear, merge, norm, split, times_silu
from nldsl.runtime.recurrence import linear_recurrence
from nldsl.runtime.token import tick_all
from torch import Tensor


class LinearAttention(Module):
    """`linear_attention(x)` with heads = 4.

    S: linear (the gradient of `dot` does not depend on the memory).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("k.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("v.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("out.norm.weight", (64,), "norm", constant(1.0))
        self.declare("out.linear.weight", (256, 256), "matrix", normal(0.0625))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"S": {"running": {"weight": self.zeros(batch, 4, 64, 64)}, "count": self.counter(batch)}}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q = l2norm(split(linear(x, self.q.linear.weight), n=4), eps=1e-06)
        k = l2norm(split(linear(x, self.k.linear.weight), n=4), eps=1e-06)
        v = linear(x, self.v.linear.weight)
        S_write_split = split(v, n=4)
        S_state = state["S"]["running"]["weight"]
        S_add = S_write_split
        out_S, S_next = linear_recurrence(q, k, S_add, S_state, read="after", mask=mask)
        new["S"] = {"running": {"weight": S_next}, "count": tick_all(state["S"]["count"], mask, x)}
        out = linear(merge(norm(out_S, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
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


class LinearAttentionBlocks(Module):
    """`linear_attention_blocks(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.norm.weight", (256,), "norm", constant(1.0))
        self.declare("x.norm_2.weight", (256,), "norm", constant(1.0))
        self.attach("linear_attention", LinearAttention())
        self.attach("swiglu", Swiglu())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"linear_attention": self.linear_attention.initial_state(batch)}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_linear_attention, new["linear_attention"] = self.linear_attention(
            norm(x, self.x.norm.weight, eps=1e-06), state["linear_attention"], mask
        )
        x_1 = x + x_linear_attention
        x_swiglu, _ = self.swiglu(norm(x_1, self.x.norm_2.weight, eps=1e-06), state, mask)
        x_2 = x_1 + x_swiglu
        return x_2, new


class LinearAttention2(Module):
    """`linear_attention(tokens)` with depth = 4, dim = 256, expand = 3, heads = 4, vocab = 256."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.embed.weight", (256, 256), "embedding", normal(1.0))
        self.declare("out.norm.weight", (256,), "norm", constant(1.0))
        self.declare("out.head.weight", (256, 256), "head", normal(0.0625))
        self.attach_repeated("blocks", [LinearAttentionBlocks() for _ in range(4)])

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
    """The compiled `linear_attention`, its parameters drawn from `seed`."""
    return Model(LinearAttention2().initialise(seed), "linear_attention", carry="trunc")
