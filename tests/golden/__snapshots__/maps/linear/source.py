"""`probe`, compiled by nldsl from <text>.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, normal
from torch import Tensor


def linear_kept(key: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """`linear`, row by row, and what its way back needs."""
    add = torch.baddbmm(b, key, W.mT)
    return (add,)


def linear_pullback(d_1: Tensor, key: Tensor, W: Tensor, b: Tensor) -> tuple[Any, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight.
    """
    return d_1 @ W, d_1, key, d_1, None


def linear_l2_gradient_kept(key: Tensor, target: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """`linear_l2_gradient`, row by row, and what its way back needs."""
    add = torch.baddbmm(b, key, W.mT)
    sub = add.sub_(target)
    return key, sub, sub


def linear_l2_gradient_pullback(
    d_1: Tensor, d_2: Tensor, d_3: Tensor, key: Tensor, target: Tensor, W: Tensor, b: Tensor
) -> tuple[Any, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, then `dy, x`
    of every outer product of the gradient of every weight.
    """
    add = d_2.add_(d_3)
    add_2 = d_1.baddbmm_(add, W)
    return add_2, -add, add, key, add, None


class Probe(Module):
    """`probe(x)`.

    M: held (reads and gradients see the last commit: 16 tokens are parallel, and all chunks are one
    function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("M.W", (8, 8), "matrix", normal(0.3535533905932738))
        self.declare("M.b", (8,), "rest", normal(0.3535533905932738))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "committed": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        M_fade = fading(grid, x[:, :, None], rate=0.1)
        M_held = held_pass(
            grid,
            16,
            (
                Pulled(linear_kept, linear_pullback, 1, (1, 1)),
                Pulled(linear_l2_gradient_kept, linear_l2_gradient_pullback, 3, (1, 1)),
            ),
            ((x[:, :, None],), x[:, :, None], x[:, :, None]),
            M_fade,
            (
                (state["M"]["running"]["W"][:, None], state["M"]["running"]["b"].unsqueeze(-2)[:, None]),
                (state["M"]["committed"]["W"][:, None], state["M"]["committed"]["b"].unsqueeze(-2)[:, None]),
                (),
            ),
            biases=(1,),
        )
        y = M_held.reads[0].squeeze(2)
        new["M"] = {
            "running": {"W": M_held.running[0].squeeze(1), "b": M_held.running[1].squeeze(1).squeeze(-2)},
            "committed": {
                "W": M_held.committed[0].squeeze(1),
                "b": M_held.committed[1].squeeze(1).squeeze(-2),
            },
            "count": grid.count,
        }
        return y, new


def build(seed: int = 0) -> Layer:
    """The compiled `probe`, its parameters drawn from `seed`."""
    return Layer(Probe().initialise(seed), "probe")
