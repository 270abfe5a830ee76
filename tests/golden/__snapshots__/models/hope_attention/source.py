"""`hope_attention`, compiled by nldsl from specs/models/hope_attention.nl.  Edit the specification, not
this file.
"""

from __future__ import annotations

from typing import Any

from nldsl.runtime.attention import attention
from nldsl.runtime.kept_layers import silu_perceptron
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import embed, head, linear, merge, norm, rope, split
from nldsl.runtime.task import TaskMemory, adapted
from torch import Tensor


def gd(W: Tensor, g: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = 0.001 * g
    W_1 = W - W_mul
    return W_1


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


class Cms(Module):
    """`cms(x)` with chunks = (16, 64, 256), expand = 4, rate = 0.001.

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
        self.declare("x[0].norm.weight", (256,), "norm", constant(1.0))
        self.declare("x[1].norm.weight", (256,), "norm", constant(1.0))
        self.declare("x[2].norm.weight", (256,), "norm", constant(1.0))
        self.declare("F[0].W2", (1024, 256), "matrix", normal(0.0625))
        self.declare("F[0].W1", (256, 1024), "matrix", normal(0.03125))
        self.declare("F[1].W2", (1024, 256), "matrix", normal(0.0625))
        self.declare("F[1].W1", (256, 1024), "matrix", normal(0.03125))
        self.declare("F[2].W2", (1024, 256), "matrix", normal(0.0625))
        self.declare("F[2].W1", (256, 1024), "matrix", normal(0.03125))

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
        x_1 = silu_perceptron(
            x,
            adapted(self.F[0].W2, state["F[0]"], "W2"),
            adapted(self.F[0].W1, state["F[0]"], "W1"),
            scale=self.x[0].norm.weight,
            eps=1e-06,
            residual=True,
        )
        x_2 = silu_perceptron(
            x_1,
            adapted(self.F[1].W2, state["F[1]"], "W2"),
            adapted(self.F[1].W1, state["F[1]"], "W1"),
            scale=self.x[1].norm.weight,
            eps=1e-06,
            residual=True,
        )
        x_3 = silu_perceptron(
            x_2,
            adapted(self.F[2].W2, state["F[2]"], "W2"),
            adapted(self.F[2].W1, state["F[2]"], "W1"),
            scale=self.x[2].norm.weight,
            eps=1e-06,
            residual=True,
        )
        new["F[0]"] = state["F[0]"]
        new["F[1]"] = state["F[1]"]
        new["F[2]"] = state["F[2]"]
        return x_3, new


class HopeBlocks(Module):
    """`hope_blocks(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.norm.weight", (256,), "norm", constant(1.0))
        self.attach("attention", Attention())
        self.attach("cms", Cms())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"attention": self.attention.initial_state(batch), "cms": self.cms.initial_state(batch)}

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_attention, new["attention"] = self.attention(
            norm(x, self.x.norm.weight, eps=1e-06), state["attention"], mask
        )
        x_1 = x + x_attention
        x_2, new["cms"] = self.cms(x_1, state["cms"], mask)
        return x_2, new


class Hope(Module):
    """`hope(tokens)` with chunks = (16, 64, 256), depth = 4, dim = 256, heads = 4, mixer = attention,
    system = cms, vocab = 256.
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.embed.weight", (256, 256), "embedding", normal(1.0))
        self.declare("out.norm.weight", (256,), "norm", constant(1.0))
        self.declare("out.head.weight", (256, 256), "head", normal(0.0625))
        self.attach_repeated("blocks", [HopeBlocks() for _ in range(4)])

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
    """The compiled `hope_attention`, its parameters drawn from `seed`."""
    return Model(Hope().initialise(seed), "hope_attention", carry="exact")
