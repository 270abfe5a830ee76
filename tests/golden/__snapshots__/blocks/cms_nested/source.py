"""`cms_nested`, compiled by nldsl from specs/blocks/cms_nested.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

from nldsl.runtime.kept_layers import silu_perceptron
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.task import TaskMemory, adapted
from torch import Tensor


def gd(W: Tensor, g: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = 0.001 * g
    W_1 = W - W_mul
    return W_1


class CmsNested(Module):
    """`cms_nested(x)` with expand = 4, fast = 16, rate = 0.001, slow = 256.

    F1: task (learns from the task between segments; within one it is a plain map).

    F2: task (learns from the task between segments; within one it is a plain map).
    """

    tasks = (
        TaskMemory(
            path="F2",
            every=256,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="slow",
            descent=0.001,
        ),
        TaskMemory(
            path="F1",
            every=16,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="fast",
            descent=0.001,
            reset=256,
            source="F2",
            parameters=("F2.W2", "F2.W1"),
            shapes=((128, 32), (32, 128)),
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.norm.weight", (32,), "norm", constant(1.0))
        self.declare("out.norm.weight", (32,), "norm", constant(1.0))
        self.declare("F2.W2", (128, 32), "matrix", normal(0.1767766952966369))
        self.declare("F2.W1", (32, 128), "matrix", normal(0.08838834764831845))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "F2": {"delta": None, "count": self.counter(batch)},
            "F1": {"delta": None, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_1 = silu_perceptron(
            x,
            adapted(self.F2.W2, state["F1"], "W2"),
            adapted(self.F2.W1, state["F1"], "W1"),
            scale=self.x.norm.weight,
            eps=1e-06,
            residual=True,
        )
        out = silu_perceptron(
            x_1,
            adapted(self.F2.W2, state["F2"], "W2"),
            adapted(self.F2.W1, state["F2"], "W1"),
            scale=self.out.norm.weight,
            eps=1e-06,
            residual=True,
        )
        new["F2"] = state["F2"]
        new["F1"] = state["F1"]
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `cms_nested`, its parameters drawn from `seed`."""
    return Layer(CmsNested().initialise(seed), "cms_nested")
