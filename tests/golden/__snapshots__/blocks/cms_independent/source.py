"""`cms_independent`, compiled by nldsl from specs/blocks/cms_independent.nl.  Edit the specification, not
this file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.kept_layers import silu_perceptron
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import merge, norm, readout, scaled, split
from nldsl.runtime.task import TaskMemory, adapted
from torch import Tensor


def gd(W: Tensor, g: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = 0.001 * g
    W_1 = W - W_mul
    return W_1


class CmsIndependent(Module):
    """`cms_independent(x)` with chunks = (16, 64, 256), expand = 4, rate = 0.001.

    F[0]: task (learns from the task between segments; within one it is a plain map).

    F[1]: task (learns from the task between segments; within one it is a plain map).

    F[2]: task (learns from the task between segments; within one it is a plain map).
    """

    tasks = (
        TaskMemory(
            path="F[0]",
            every=16,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="f[0]",
            descent=0.001,
        ),
        TaskMemory(
            path="F[1]",
            every=64,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="f[1]",
            descent=0.001,
        ),
        TaskMemory(
            path="F[2]",
            every=256,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="f[2]",
            descent=0.001,
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.declare("h.norm.weight", (32,), "norm", constant(1.0))
        self.declare("y[0].readout.weight", (1, 32), "rest", normal(0.1))
        self.declare("y[0].readout.bias", (1,), "rest", constant(0.0))
        self.declare("y[1].readout.weight", (1, 32), "rest", normal(0.1))
        self.declare("y[1].readout.bias", (1,), "rest", constant(0.0))
        self.declare("y[2].readout.weight", (1, 32), "rest", normal(0.1))
        self.declare("y[2].readout.bias", (1,), "rest", constant(0.0))
        self.declare("F[0].W2", (128, 32), "matrix", normal(0.1767766952966369))
        self.declare("F[0].W1", (32, 128), "matrix", normal(0.08838834764831845))
        self.declare("F[1].W2", (128, 32), "matrix", normal(0.1767766952966369))
        self.declare("F[1].W1", (32, 128), "matrix", normal(0.08838834764831845))
        self.declare("F[2].W2", (128, 32), "matrix", normal(0.1767766952966369))
        self.declare("F[2].W1", (32, 128), "matrix", normal(0.08838834764831845))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "F[0]": {"delta": None, "count": self.counter(batch)},
            "F[1]": {"delta": None, "count": self.counter(batch)},
            "F[2]": {"delta": None, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        h = norm(x, self.h.norm.weight, eps=1e-06)
        y_mul = 2 * torch.sigmoid(readout(split(h, n=1), self.y[0].readout.weight, self.y[0].readout.bias))
        y_F = silu_perceptron(
            h, adapted(self.F[0].W2, state["F[0]"], "W2"), adapted(self.F[0].W1, state["F[0]"], "W1")
        )
        y = x[..., None, :] + scaled(y_mul[..., None], split(y_F, n=1))
        y_mul_2 = 2 * torch.sigmoid(readout(split(h, n=1), self.y[1].readout.weight, self.y[1].readout.bias))
        y_F_1 = silu_perceptron(
            h, adapted(self.F[1].W2, state["F[1]"], "W2"), adapted(self.F[1].W1, state["F[1]"], "W1")
        )
        y_1 = y + scaled(y_mul_2[..., None], split(y_F_1, n=1))
        y_mul_4 = 2 * torch.sigmoid(readout(split(h, n=1), self.y[2].readout.weight, self.y[2].readout.bias))
        y_F_2 = silu_perceptron(
            h, adapted(self.F[2].W2, state["F[2]"], "W2"), adapted(self.F[2].W1, state["F[2]"], "W1")
        )
        y_2 = y_1 + scaled(y_mul_4[..., None], split(y_F_2, n=1))
        out = merge(y_2)
        new["F[0]"] = state["F[0]"]
        new["F[1]"] = state["F[1]"]
        new["F[2]"] = state["F[2]"]
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `cms_independent`, its parameters drawn from `seed`."""
    return Layer(CmsIndependent().initialise(seed), "cms_independent")
