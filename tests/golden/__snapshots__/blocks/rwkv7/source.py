"""`rwkv7`, compiled by nldsl from specs/blocks/rwkv7.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Piece, Write
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import dot, l2norm, layernorm, linear, merge, scaled, shift, split
from nldsl.runtime.token import tick_all
from torch import Tensor


class Rwkv7(Module):
    """`rwkv7(x)` with eps = 0.00064, heads = 2, rank = 8.

    S: delta_block (`l2` with `gd` and `dot` with `gd` is affine in the memory, of rank one along one
    key; gates per key channel).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("r.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("r.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("w.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("w.linear.weight", (8, 32), "matrix", normal(0.1767766952966369))
        self.declare("w.linear_2.weight", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("w.linear_2.bias", (32,), "rest", constant(0.0))
        self.declare("raw.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("raw.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("a.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("a.linear.weight", (8, 32), "matrix", normal(0.1767766952966369))
        self.declare("a.linear_2.weight", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("a.linear_2.bias", (32,), "rest", constant(0.0))
        self.declare("g.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("g.linear.weight", (8, 32), "matrix", normal(0.1767766952966369))
        self.declare("g.linear_2.weight", (32, 8), "matrix", normal(0.3535533905932738))
        self.declare("kappa.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("k.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("bonus.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("out.layernorm.weight", (16,), "norm", constant(1.0))
        self.declare("out.layernorm.bias", (16,), "norm", constant(0.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "gap.shift": {"tail": self.zeros(batch, 1, 32)},
            "S": {"running": {"weight": self.zeros(batch, 2, 16, 16)}, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        gap_shift, new["gap.shift"] = shift(x, by=1, state=state["gap.shift"], mask=mask)
        gap = gap_shift - x
        r = split(linear(x + gap * self.r.weight.weight, self.r.linear.weight), n=2)
        w__log = split(
            -0.6065306597126334
            * torch.sigmoid(
                linear(
                    torch.tanh(linear(x + gap * self.w.weight.weight, self.w.linear.weight)),
                    self.w.linear_2.weight,
                    self.w.linear_2.bias,
                ),
            ),
            n=2,
        )
        raw = linear(x + gap * self.raw.weight.weight, self.raw.linear.weight)
        v = split(linear(x + gap * self.v.weight.weight, self.v.linear.weight), n=2)
        a = split(
            torch.sigmoid(
                linear(
                    linear(x + gap * self.a.weight.weight, self.a.linear.weight),
                    self.a.linear_2.weight,
                    self.a.linear_2.bias,
                ),
            ),
            n=2,
        )
        g = linear(
            torch.sigmoid(linear(x + gap * self.g.weight.weight, self.g.linear.weight)),
            self.g.linear_2.weight,
        )
        kappa = l2norm(split(raw * self.kappa.weight.weight, n=2), eps=1e-06)
        k = split(raw * (1 + (merge(a) - 1) * self.k.weight.weight), n=2)
        S_memory = MatrixMemory(
            state["S"]["running"]["weight"],
            (
                Write(
                    (
                        Piece(
                            along=kappa * a,
                            add=kappa.new_full((*kappa.shape[:-1], 16), 0.0),
                            seen=kappa,
                            erase=kappa.new_full(kappa.shape[:-1], 1.0),
                        ),
                        Piece(along=k, add=v),
                    ),
                    Gate(log=w__log),
                ),
            ),
            mask=mask,
        )
        out_S = S_memory.read(r, at=1)
        new["S"] = {"running": {"weight": S_memory.state}, "count": tick_all(state["S"]["count"], mask, x)}
        bonus = scaled(dot(r, k * split(self.bonus.weight.weight, n=2))[..., None], v)
        out = linear(
            g
            * merge(
                layernorm(out_S, self.out.layernorm.weight, self.out.layernorm.bias, eps=0.00064) + bonus
            ),
            self.out.linear.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `rwkv7`, its parameters drawn from `seed`."""
    return Layer(Rwkv7().initialise(seed), "rwkv7")
