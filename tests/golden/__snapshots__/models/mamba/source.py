"""`mamba`, compiled by nldsl from specs/models/mamba.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_scan import scan_memory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, embed, head, index, linear, norm, outer, softplus, times_silu
from nldsl.runtime.token import tick_all
from torch import Tensor


class Mamba1(Module):
    """`mamba1(x)` with expand = 2, rank = 4, state = 16, window = 4.

    S: scan (the gradient of `dot` with `gd` does not depend on the memory; gates per element leave a
    scan over the tokens).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("z.linear.weight", (512, 256), "matrix", normal(0.0625))
        self.declare("u.linear.weight", (512, 256), "matrix", normal(0.0625))
        self.declare("u.conv.weight", (512, 4), "rest", normal(0.5))
        self.declare("u.conv.bias", (512,), "rest", constant(0.0))
        self.declare("r.linear.weight", (36, 512), "matrix", normal(0.04419417382415922))
        self.declare("dt.linear.weight", (512, 4), "matrix", normal(0.5))
        self.declare("dt.linear.bias", (512,), "rest", constant(0.0))
        self.declare("A.weight.weight", (512, 16), "matrix", normal(0.25))
        self.declare("D.weight.weight", (512,), "rest", normal(0.04419417382415922))
        self.declare("out.linear.weight", (256, 512), "matrix", normal(0.04419417382415922))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "u.conv": {"tail": self.zeros(batch, 3, 512)},
            "S": {"running": {"weight": self.zeros(batch, 512, 16)}, "count": self.counter(batch)},
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
        r_linear = linear(u, self.r.linear.weight)
        r, b, c = r_linear.split((4, 16, 16), -1)
        dt = softplus(linear(r, self.dt.linear.weight, self.dt.linear.bias))
        A = self.A.weight.weight
        D = self.D.weight.weight
        decay_add = 0 * index(size=16, like=x) + 1
        decay_add = decay_add.expand(*x.shape[:2], 16)
        S_memory = scan_memory(
            state["S"]["running"]["weight"].unsqueeze(1),
            (
                Write(
                    (Piece(along=b.unsqueeze(2), add=(dt * u).unsqueeze(2)),),
                    Gate(log=(-outer(dt, decay_add) * torch.exp(A)).unsqueeze(2)),
                ),
            ),
            ((c.unsqueeze(2), 1),),
            mask=mask,
        )
        out_S = S_memory.reads[0].squeeze(2)
        new["S"] = {
            "running": {"weight": S_memory.state.squeeze(1)},
            "count": tick_all(state["S"]["count"], mask, x),
        }
        out = linear(times_silu(out_S + D * u, z), self.out.linear.weight)
        return out, new


class MambaBlocks(Module):
    """`mamba_blocks(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.norm.weight", (256,), "norm", constant(1.0))
        self.attach("mamba1", Mamba1())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"mamba1": self.mamba1.initial_state(batch)}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_mamba1, new["mamba1"] = self.mamba1(norm(x, self.x.norm.weight, eps=1e-06), state["mamba1"], mask)
        x_1 = x + x_mamba1
        return x_1, new


class Mamba(Module):
    """`mamba(tokens)` with depth = 4, dim = 256, mixer = mamba1, vocab = 256."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.embed.weight", (256, 256), "embedding", normal(1.0))
        self.declare("out.norm.weight", (256,), "norm", constant(1.0))
        self.declare("out.head.weight", (256, 256), "head", normal(0.0625))
        self.attach_repeated("blocks", [MambaBlocks() for _ in range(4)])

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
    """The compiled `mamba`, its parameters drawn from `seed`."""
    return Model(Mamba().initialise(seed), "mamba", carry="trunc")
