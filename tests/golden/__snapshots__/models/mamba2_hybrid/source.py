"""`mamba2_hybrid`, compiled by nldsl from specs/models/mamba2_hybrid.nl.  Edit the specification, not this
file.
"""

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
    linear,
    merge,
    norm,
    rope,
    scaled,
    share,
    softplus,
    split,
    times_silu,
)
from nldsl.runtime.recurrence import linear_recurrence
from nldsl.runtime.token import tick_all
from torch import Tensor


class Mamba2(Module):
    """`mamba2(x)` with expand = 2, heads = 4, state = 16, window = 4.

    S: linear (the gradient of `dot` does not depend on the memory).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("z.linear.weight", (512, 256), "matrix", normal(0.0625))
        self.declare("u.linear.weight", (544, 256), "matrix", normal(0.0625))
        self.declare("u.conv.weight", (544, 4), "rest", normal(0.5))
        self.declare("u.conv.bias", (544,), "rest", constant(0.0))
        self.declare("dt.linear.weight", (4, 256), "matrix", normal(0.0625))
        self.declare("dt.linear.bias", (4,), "rest", constant(0.0))
        self.declare("A.weight.weight", (4,), "rest", normal(0.5))
        self.declare("D.weight.weight", (4,), "rest", normal(0.5))
        self.declare("out.norm.weight", (512,), "norm", constant(1.0))
        self.declare("out.linear.weight", (256, 512), "matrix", normal(0.04419417382415922))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "u.conv": {"tail": self.zeros(batch, 3, 544)},
            "S": {"running": {"weight": self.zeros(batch, 4, 128, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        z = linear(x, self.z.linear.weight)
        u_conv_silu, new["u.conv"] = conv(
            linear(x, self.u.linear.weight),
            self.u.conv.weight,
            self.u.conv.bias,
            state=state["u.conv"],
            mask=mask,
            activation="silu",
        )
        u = u_conv_silu
        v, b, c = u.split((512, 16, 16), -1)
        dt = softplus(linear(x, self.dt.linear.weight, self.dt.linear.bias))
        A = self.A.weight.weight
        D = self.D.weight.weight
        alpha_mul = -dt * torch.exp(A)
        S_write_share = share(b, n=4)
        S_write_split = split(v, n=4)
        y_share = share(c, n=4)
        S_state = state["S"]["running"]["weight"]
        S_add = scaled(dt[..., None], S_write_split)
        y_S, S_next = linear_recurrence(
            y_share, S_write_share, S_add, S_state, log_decay=alpha_mul, read="after", mask=mask
        )
        new["S"] = {"running": {"weight": S_next}, "count": tick_all(state["S"]["count"], mask, x)}
        y = merge(y_S + scaled(D[:, None], split(v, n=4)))
        out = linear(norm(times_silu(y, z), self.out.norm.weight, eps=1e-06), self.out.linear.weight)
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
        self.declare("x[2].norm.weight", (256,), "norm", constant(1.0))
        self.declare("x[2].norm_2.weight", (256,), "norm", constant(1.0))
        self.declare("x[3].norm.weight", (256,), "norm", constant(1.0))
        self.declare("x[3].norm_2.weight", (256,), "norm", constant(1.0))
        self.attach("mamba2[0]", Mamba2())
        self.attach("swiglu[0]", Swiglu())
        self.attach("mamba2[1]", Mamba2())
        self.attach("swiglu[1]", Swiglu())
        self.attach("mamba2[2]", Mamba2())
        self.attach("swiglu[2]", Swiglu())
        self.attach("attention[3]", Attention())
        self.attach("swiglu[3]", Swiglu())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "mamba2[0]": self.mamba2[0].initial_state(batch),
            "mamba2[1]": self.mamba2[1].initial_state(batch),
            "mamba2[2]": self.mamba2[2].initial_state(batch),
            "attention[3]": self.attention[3].initial_state(batch),
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_mamba2, new["mamba2[0]"] = self.mamba2[0](
            norm(x, self.x[0].norm.weight, eps=1e-06), state["mamba2[0]"], mask
        )
        x_1 = x + x_mamba2
        x_swiglu, _ = self.swiglu[0](norm(x_1, self.x[0].norm_2.weight, eps=1e-06), state, mask)
        x_2 = x_1 + x_swiglu
        x_mamba2_1, new["mamba2[1]"] = self.mamba2[1](
            norm(x_2, self.x[1].norm.weight, eps=1e-06), state["mamba2[1]"], mask
        )
        x_3 = x_2 + x_mamba2_1
        x_swiglu_1, _ = self.swiglu[1](norm(x_3, self.x[1].norm_2.weight, eps=1e-06), state, mask)
        x_4 = x_3 + x_swiglu_1
        x_mamba2_2, new["mamba2[2]"] = self.mamba2[2](
            norm(x_4, self.x[2].norm.weight, eps=1e-06), state["mamba2[2]"], mask
        )
        x_5 = x_4 + x_mamba2_2
        x_swiglu_2, _ = self.swiglu[2](norm(x_5, self.x[2].norm_2.weight, eps=1e-06), state, mask)
        x_6 = x_5 + x_swiglu_2
        x_attention, new["attention[3]"] = self.attention[3](
            norm(x_6, self.x[3].norm.weight, eps=1e-06), state["attention[3]"], mask
        )
        x_7 = x_6 + x_attention
        x_swiglu_3, _ = self.swiglu[3](norm(x_7, self.x[3].norm_2.weight, eps=1e-06), state, mask)
        x_8 = x_7 + x_swiglu_3
        return x_8, new


class Hybrid(Module):
    """`hybrid(tokens)` with depth = 2, dim = 256, heads = 4, pattern = ('mamba2', 'mamba2', 'mamba2',
    'attention'), vocab = 256.
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
    """The compiled `mamba2_hybrid`, its parameters drawn from `seed`."""
    return Model(Hybrid().initialise(seed), "mamba2_hybrid", carry="trunc")
