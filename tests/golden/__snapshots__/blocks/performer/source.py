"""`performer`, compiled by nldsl from specs/blocks/performer.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.ops import linear, merge, split, sum
from nldsl.runtime.recurrence import linear_recurrence
from nldsl.runtime.token import tick_all
from torch import Tensor


class RandomFeatures(Module):
    """`random_features(z)` with features = 16."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("W.weight.weight", (16, 16), "matrix", normal(0.25))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {}

    def forward(self, z: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        W = torch.detach(self.W.weight.weight) * 4.0
        s = z / 2.0
        out = torch.exp(s @ W.mT - (sum(s**2) / 2)[..., None]) / 4.0
        out_merge = merge(out)
        return out_merge, new


class KernelAttention(Module):
    """`kernel_attention(x)` with eps = 1e-06, feature = random_features, heads = 2.

    S: linear (the gradient of `dot` does not depend on the memory).

    N: linear (the gradient of `dot` does not depend on the memory).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("both.linear.weight", (64, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.attach("random_features", RandomFeatures())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "S": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
            "N": {"running": {"weight": self.zeros(batch, 2, 1, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        both, _ = self.random_features(split(linear(x, self.both.linear.weight), n=4), state, mask)
        q, k = both.split((32, 32), -1)
        v = linear(x, self.v.linear.weight)
        S_write_split = split(k, n=2)
        S_write_split_1 = split(v, n=2)
        N_write_split = split(k, n=2)
        out_split = split(q, n=2)
        S_state = state["S"]["running"]["weight"]
        S_add = S_write_split_1
        out_S, S_next = linear_recurrence(out_split, S_write_split, S_add, S_state, read="after", mask=mask)
        new["S"] = {"running": {"weight": S_next}, "count": tick_all(state["S"]["count"], mask, x)}
        out_split_1 = split(q, n=2)
        N_state = state["N"]["running"]["weight"]
        N_add = N_write_split.new_full((*N_write_split.shape[:-1], 1), 1.0)
        out_N, N_next = linear_recurrence(out_split_1, N_write_split, N_add, N_state, read="after", mask=mask)
        new["N"] = {"running": {"weight": N_next}, "count": tick_all(state["N"]["count"], mask, x)}
        out = linear(merge(out_S / (sum(out_N) + 1e-06)[..., None]), self.out.linear.weight)
        return out, new


class Performer(Module):
    """`performer(x)` with heads = 2."""

    def __init__(self) -> None:
        super().__init__()
        self.attach("kernel_attention", KernelAttention())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"kernel_attention": self.kernel_attention.initial_state(batch)}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        out, new["kernel_attention"] = self.kernel_attention(x, state["kernel_attention"], mask)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `performer`, its parameters drawn from `seed`."""
    return Layer(Performer().initialise(seed), "performer")
