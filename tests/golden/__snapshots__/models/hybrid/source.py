"""`hybrid`, compiled by nldsl from specs/models/hybrid.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.attention import attention
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import (
    conv,
    embed,
    head,
    l2norm,
    linear,
    merge,
    norm,
    rope,
    scaled,
    softplus,
    split,
    times_silu,
)
from nldsl.runtime.recurrence import delta_recurrence
from nldsl.runtime.token import tick_all
from torch import Tensor


class GatedDeltanet(Module):
    """`gated_deltanet(x)` with heads = 4, window = 4.

    S: delta (`l2` with `gd` is affine in the memory, of rank one along the key).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("q.conv.weight", (256, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (256,), "rest", constant(0.0))
        self.declare("k.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("k.conv.weight", (256, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (256,), "rest", constant(0.0))
        self.declare("v.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("v.conv.weight", (256, 4), "rest", normal(0.5))
        self.declare("v.conv.bias", (256,), "rest", constant(0.0))
        self.declare("beta.linear.weight", (4, 256), "matrix", normal(0.0625))
        self.declare("alpha.linear.weight", (4, 256), "matrix", normal(0.0625))
        self.declare("out.norm.weight", (64,), "norm", constant(1.0))
        self.declare("out.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("out.linear_2.weight", (256, 256), "matrix", normal(0.0625))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 256)},
            "k.conv": {"tail": self.zeros(batch, 3, 256)},
            "v.conv": {"tail": self.zeros(batch, 3, 256)},
            "S": {"running": {"weight": self.zeros(batch, 4, 64, 64)}, "count": self.counter(batch)},
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
        q = l2norm(split(q_conv_silu, n=4), eps=1e-06)
        k_conv_silu, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
            activation="silu",
        )
        k = l2norm(split(k_conv_silu, n=4), eps=1e-06)
        v_conv_silu, new["v.conv"] = conv(
            linear(x, self.v.linear.weight),
            self.v.conv.weight,
            self.v.conv.bias,
            state=state["v.conv"],
            mask=mask,
            activation="silu",
        )
        v = v_conv_silu
        beta = torch.sigmoid(linear(x, self.beta.linear.weight))
        alpha_neg = -softplus(linear(x, self.alpha.linear.weight))
        S_write_split = split(v, n=4)
        S_state = state["S"]["running"]["weight"]
        S_add = scaled(beta[..., None], S_write_split)
        S_erase = beta
        out_S, S_next = delta_recurrence(
            q, k, S_add, S_erase, S_state, log_decay=alpha_neg, feedback="decayed", read="after", mask=mask
        )
        new["S"] = {"running": {"weight": S_next}, "count": tick_all(state["S"]["count"], mask, x)}
        out = linear(
            times_silu(
                merge(norm(out_S, self.out.norm.weight, eps=1e-06)), linear(x, self.out.linear.weight)
            ),
            self.out.linear_2.weight,
        )
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


class HybridBlocks(Module):
    """`hybrid_blocks(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x[0].norm.weight", (256,), "norm", constant(1.0))
        self.declare("x[0].norm_2.weight", (256,), "norm", constant(1.0))
        self.declare("x[1].norm.weight", (256,), "norm", constant(1.0))
        self.declare("x[1].norm_2.weight", (256,), "norm", constant(1.0))
        self.attach("gated_deltanet[0]", GatedDeltanet())
        self.attach("swiglu[0]", Swiglu())
        self.attach("attention[1]", Attention())
        self.attach("swiglu[1]", Swiglu())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "gated_deltanet[0]": self.gated_deltanet[0].initial_state(batch),
            "attention[1]": self.attention[1].initial_state(batch),
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_gated_deltanet, new["gated_deltanet[0]"] = self.gated_deltanet[0](
            norm(x, self.x[0].norm.weight, eps=1e-06), state["gated_deltanet[0]"], mask
        )
        x_1 = x + x_gated_deltanet
        x_swiglu, _ = self.swiglu[0](norm(x_1, self.x[0].norm_2.weight, eps=1e-06), state, mask)
        x_2 = x_1 + x_swiglu
        x_attention, new["attention[1]"] = self.attention[1](
            norm(x_2, self.x[1].norm.weight, eps=1e-06), state["attention[1]"], mask
        )
        x_3 = x_2 + x_attention
        x_swiglu_1, _ = self.swiglu[1](norm(x_3, self.x[1].norm_2.weight, eps=1e-06), state, mask)
        x_4 = x_3 + x_swiglu_1
        return x_4, new


class Hybrid(Module):
    """`hybrid(tokens)` with depth = 2, dim = 256, heads = 4, pattern = ('gated_deltanet', 'attention'),
    vocab = 256.
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.embed.weight", (256, 256), "embedding", normal(1.0))
        self.declare("out.norm.weight", (256,), "norm", constant(1.0))
        self.declare("out.head.weight", (256, 256), "head", normal(0.0625))
        self.attach_repeated("blocks", [HybridBlocks() for _ in range(2)])

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
    """The compiled `hybrid`, its parameters drawn from `seed`."""
    return Model(Hybrid().initialise(seed), "hybrid", carry="trunc")
