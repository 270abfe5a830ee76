"""`retnet`, compiled by nldsl from specs/blocks/retnet.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import index, linear, merge, norm, rope, split, times_silu
from nldsl.runtime.recurrence import linear_recurrence
from nldsl.runtime.token import tick_all
from torch import Tensor


class Retnet(Module):
    """`retnet(x)` with expand = 2, heads = 2.

    S: linear (the gradient of `dot` does not depend on the memory).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.linear.weight", (64, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear.weight", (64, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.norm.weight", (32,), "norm", constant(1.0))
        self.declare("out.linear_2.weight", (32, 64), "matrix", normal(0.125))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.rope": {"count": self.counter(batch)},
            "k.rope": {"count": self.counter(batch)},
            "S": {"running": {"weight": self.zeros(batch, 2, 32, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        gamma = 1 - 2 ** (-5 - index(size=2, like=x))
        q, new["q.rope"] = rope(
            split(linear(x, self.q.linear.weight), n=2), base=10000.0, state=state["q.rope"], mask=mask
        )
        k_rope, new["k.rope"] = rope(
            split(linear(x, self.k.linear.weight), n=2), base=10000.0, state=state["k.rope"], mask=mask
        )
        k = k_rope / 4.0
        v = linear(x, self.v.linear.weight)
        S_write_split = split(v, n=2)
        gamma = gamma.expand(*x.shape[:2], 2)
        S_state = state["S"]["running"]["weight"]
        S_add = S_write_split
        out_S, S_next = linear_recurrence(q, k, S_add, S_state, decay=gamma, read="after", mask=mask)
        new["S"] = {"running": {"weight": S_next}, "count": tick_all(state["S"]["count"], mask, x)}
        out = linear(
            times_silu(
                merge(norm(out_S, self.out.norm.weight, eps=1e-06)), linear(x, self.out.linear.weight)
            ),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `retnet`, its parameters drawn from `seed`."""
    return Layer(Retnet().initialise(seed), "retnet")
