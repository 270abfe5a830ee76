"""`dla`, compiled by nldsl from specs/blocks/dla.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid
from nldsl.runtime.held_gates import fading, following
from nldsl.runtime.held_parts import Pulled
from nldsl.runtime.held_pass import held_pass
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, silu_pullback, split, times_silu
from torch import Tensor
from torch.nn import functional


def mlp_following(key: Tensor, W2: Any, W1: Any) -> tuple[Tensor, ...]:
    """`mlp`, row by row, and what its way back needs, at the weights of every token: `W(z)` for `W @ z`,
    `W.back(d)` for the way back.
    """
    matmul = W2(key)
    silu = functional.silu(matmul)
    return W1(silu), matmul


def mlp_following_back(d_1: Tensor, key: Tensor, W2: Any, W1: Any, matmul: Tensor) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results to those at key, then `dy, x` of every outer product of the
    gradient of every weight, at the weights of every token: `W(z)` for `W @ z`, `W.back(d)` for the way
    back.
    """
    silu_pullback_ = silu_pullback(W1.back(d_1), matmul)
    silu = functional.silu(matmul)
    return W2.back(silu_pullback_), silu_pullback_, key, d_1, silu


def mlp_dot_gradient_kept(key: Tensor, target: Tensor, W2: Tensor, W1: Tensor) -> tuple[Tensor, ...]:
    """`mlp_dot_gradient`, row by row, and what its way back needs."""
    neg = -target
    matmul = neg @ W1
    matmul_2 = key @ W2.mT
    silu_pullback_ = silu_pullback(matmul, matmul_2)
    silu = functional.silu(matmul_2)
    return key, silu_pullback_, silu, neg, neg, matmul, matmul_2


def mlp_dot_gradient_pullback(
    d_1: Tensor,
    d_2: Tensor,
    d_3: Tensor,
    d_4: Tensor,
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    W1: Tensor,
    neg: Tensor,
    matmul: Tensor,
    matmul_2: Tensor,
) -> tuple[Tensor, ...]:
    """From gradients `d_i` at its results, which are written over, to those at key, target, then `dy, x`
    of every outer product of the gradient of every weight.
    """
    silu_pullback_ = silu_pullback(d_3, matmul_2)
    silu_pullback_2 = silu_pullback(d_2, matmul_2)
    sigmoid = torch.sigmoid(matmul_2)
    mul = 2.0 * silu_pullback_2
    sub = d_2.sub_(mul)
    mul_2 = sigmoid.mul_(sub)
    add = mul_2.add_(silu_pullback_2)
    mul_3 = add.mul_(matmul)
    add_2 = silu_pullback_.add_(mul_3)
    add_3 = d_1.baddbmm_(add_2, W2)
    add_4 = d_4.baddbmm_(silu_pullback_2, W1.mT)
    return add_3, -add_4, add_2, key, neg, silu_pullback_2


class Dla(Module):
    """`dla(x)` with chunk = 16, expand = 2, heads = 2, window = 4.

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
        self.declare("keep.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("keep.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 32, 16), "matrix", normal(0.25))
        self.declare("M.W1", (2, 16, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "base": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
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
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 16
        keep = 1 - torch.sigmoid(linear(x, self.keep.linear.weight, self.keep.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        M_fade = fading(grid, k, retain=keep, rate=eta)
        M_after = following(grid, k, retain=keep, rate=eta)
        M_held = held_pass(
            grid,
            16,
            (
                Pulled(mlp_following, mlp_following_back, 1, (1, 1)),
                Pulled(mlp_dot_gradient_kept, mlp_dot_gradient_pullback, 4, (1, 1)),
            ),
            ((q,), k, M_write_split),
            M_fade,
            (
                (state["M"]["running"]["W2"], state["M"]["running"]["W1"]),
                (state["M"]["base"]["W2"], state["M"]["base"]["W1"]),
                (),
            ),
            toward=(self.M.W2, self.M.W1),
            live=(M_after,),
        )
        out_M = M_held.reads[0]
        new["M"] = {
            "running": {"W2": M_held.running[0], "W1": M_held.running[1]},
            "base": {"W2": M_held.committed[0], "W1": M_held.committed[1]},
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
    """The compiled `dla`, its parameters drawn from `seed`."""
    return Layer(Dla().initialise(seed), "dla")
