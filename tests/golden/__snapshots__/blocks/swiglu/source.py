"""`swiglu`, compiled by nldsl from specs/blocks/swiglu.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from nldsl.runtime.ops import linear, times_silu
from torch import Tensor


class Swiglu(Module):
    """`swiglu(x)` with expand = 3."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("gate.linear.weight", (96, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear.weight", (96, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 96), "matrix", normal(0.10206207261596575))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        gate_raw = linear(x, self.gate.linear.weight)
        out = linear(times_silu(linear(x, self.out.linear.weight), gate_raw), self.out.linear_2.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `swiglu`, its parameters drawn from `seed`."""
    return Layer(Swiglu().initialise(seed), "swiglu")
