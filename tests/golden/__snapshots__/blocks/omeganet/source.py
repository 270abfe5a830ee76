"""`omeganet`, compiled by nldsl from specs/blocks/omeganet.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading, following, gate_rows
from nldsl.runtime.held_lessons import window_lessons
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import (
    concat,
    conv,
    kron,
    l2norm,
    linear,
    merge,
    norm,
    silu_pullback,
    split,
    times_silu,
)
from torch import Tensor
from torch.nn import functional


def perceptron_following(key: Tensor, W2: Any, W1: Any) -> tuple[Tensor, ...]:
    """`perceptron`, row by row, and what its way back needs, at the weights of every token: `W(z)` for `W
    @ z`, `W.back(d)` for the way back.
    """
    matmul = W2(key)
    silu = functional.silu(matmul)
    return W1(silu), matmul


def perceptron_following_back(
    d_1: Tensor, key: Tensor, W2: Any, W1: Any, matmul: Tensor
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight, at the weights of every token: `W(z)` for `W @ z`, `W.back(d)` for the way
    back.
    """
    silu_pullback_ = silu_pullback(W1.back(d_1), matmul)
    silu = functional.silu(matmul)
    return W2.back(silu_pullback_), silu_pullback_, key, d_1, silu


def perceptron_l2_gradient_kept(key: Tensor, target: Tensor, W2: Tensor, W1: Tensor) -> tuple[Tensor, ...]:
    """`perceptron_l2_gradient`, row by row, and what its way back needs."""
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    sub = torch.baddbmm(target, silu, W1.mT, beta=-1)
    matmul_2 = sub @ W1
    silu_pullback_ = silu_pullback(matmul_2, matmul)
    return key, silu_pullback_, silu, sub, matmul, silu, sub, matmul_2


def perceptron_l2_gradient_pullback(
    d_1: Tensor,
    d_2: Tensor,
    d_3: Tensor,
    d_4: Tensor,
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    W1: Tensor,
    matmul: Tensor,
    silu: Tensor,
    sub: Tensor,
    matmul_2: Tensor,
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, then `dy, x`
    of every outer product of the gradient of every weight.
    """
    silu_pullback_ = silu_pullback(d_2, matmul)
    sigmoid = torch.sigmoid(matmul)
    mul = 2.0 * silu_pullback_
    sub_2 = d_2.sub_(mul)
    mul_2 = sigmoid.mul_(sub_2)
    add = mul_2.add_(silu_pullback_)
    mul_3 = add.mul_(matmul_2)
    add_2 = d_4.baddbmm_(silu_pullback_, W1.mT)
    add_3 = d_3.baddbmm_(add_2, W1)
    silu_pullback_2 = silu_pullback(add_3, matmul)
    add_4 = mul_3.add_(silu_pullback_2)
    add_5 = d_1.baddbmm_(add_4, W2)
    return add_5, -add_2, add_4, key, sub, silu_pullback_, add_2, silu


class Taylor(Module):
    """`taylor(z)`."""

    def __init__(self) -> None:
        super().__init__()

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {}

    def forward(self, z: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        s = z / 2.0
        first, rest = s.split((1, 15), -1)
        out = concat(0 * first + 1, first, rest, kron(s, s) / 1.4142135623730951)
        out_merge = merge(out)
        return out_merge, new


class Omeganet(Module):
    """`omeganet(x)` with chunk = 16, context = 4, heads = 2, hidden = 64, window = 4.

    M: held (gradients are held at a base, reads of `M` follow: 16 tokens are parallel, and all chunks
    are one function whose way back is derived, not recorded).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("v.conv.bias", (32,), "rest", constant(0.0))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("gamma.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 64, 273), "matrix", normal(0.06052275326688024))
        self.declare("M.W1", (2, 16, 64), "matrix", normal(0.125))
        self.attach("taylor", Taylor())
        self.attach("taylor_2", Taylor())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "base": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "windows": {
                    "0": {
                        "key": self.zeros(batch, 2, 3, 273) + 1.0,
                        "target": self.zeros(batch, 2, 3, 16) + 1.0,
                        "weight": self.zeros(batch, 2, 3),
                    },
                },
                "count": self.counter(batch),
            },
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q_conv_silu, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
            activation="silu",
        )
        q = l2norm(split(q_conv_silu, n=2), eps=1e-06)
        k_conv_silu, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
            activation="silu",
        )
        k = l2norm(split(k_conv_silu, n=2), eps=1e-06)
        v_conv_silu, new["v.conv"] = conv(
            linear(x, self.v.linear.weight),
            self.v.conv.weight,
            self.v.conv.bias,
            state=state["v.conv"],
            mask=mask,
            activation="silu",
        )
        v = v_conv_silu
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 64
        gamma = torch.sigmoid(linear(x, self.gamma.linear.weight))
        alpha = 1 - torch.sigmoid(linear(x, self.alpha.linear.weight, self.alpha.linear.bias)) / 16
        M_write_taylor, _ = self.taylor(k, state, mask)
        M_write_split = split(M_write_taylor, n=2)
        M_write_split_1 = split(v, n=2)
        out_taylor, _ = self.taylor_2(q, state, mask)
        out_split = split(out_taylor, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        M_lessons = window_lessons(
            grid,
            (M_write_split, M_write_split_1, gate_rows(M_write_split, gamma)),
            (
                state["M"]["windows"]["0"]["key"],
                state["M"]["windows"]["0"]["target"],
                state["M"]["windows"]["0"]["weight"],
            ),
            4,
        )
        M_fade = fading(grid, M_write_split, retain=alpha, rate=eta, lessons=M_lessons.lessons)
        M_after = following(grid, M_write_split, retain=alpha, rate=eta, lessons=M_lessons.lessons)
        M_held = held_pass(
            grid,
            16,
            (
                Pulled(perceptron_following, perceptron_following_back, 1, (1, 1)),
                Pulled(perceptron_l2_gradient_kept, perceptron_l2_gradient_pullback, 4, (1, 2)),
            ),
            ((out_split,), M_lessons.key, M_lessons.target),
            M_fade,
            (
                (state["M"]["running"]["W2"], state["M"]["running"]["W1"]),
                (state["M"]["base"]["W2"], state["M"]["base"]["W1"]),
                (),
            ),
            window=4,
            live=(M_after,),
        )
        out_M = M_held.reads[0]
        new["M"] = {
            "running": {"W2": M_held.running[0], "W1": M_held.running[1]},
            "base": {"W2": M_held.committed[0], "W1": M_held.committed[1]},
            "windows": {
                "0": {"key": M_lessons.kept[0], "target": M_lessons.kept[1], "weight": M_lessons.kept[2]},
            },
            "count": grid.count,
        }
        out = linear(
            times_silu(
                merge(norm(out_M, self.out.norm.weight, eps=1e-06)), linear(x, self.out.linear.weight)
            ),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `omeganet`, its parameters drawn from `seed`."""
    return Layer(Omeganet().initialise(seed), "omeganet")
