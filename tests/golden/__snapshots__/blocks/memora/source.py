"""`memora`, compiled by nldsl from specs/blocks/memora.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.course import Course, Impulse, gate_kernel
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import (
    conv,
    gelu_pullback,
    l2norm,
    layernorm,
    linear,
    merge,
    norm,
    softmax,
    split,
    times_silu,
)
from torch import Tensor
from torch.nn import functional


def miras_mlp(
    z: Tensor, W2: Tensor, W1: Tensor, M_out_layernorm_weight: Tensor, M_out_layernorm_bias: Tensor
) -> Tensor:
    """The map `miras_mlp`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_gelu = functional.gelu(out_matmul)
    out_matmul_1 = out_gelu @ W1.mT
    out_layernorm = layernorm(out_matmul_1, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    out = z + out_layernorm
    return out


def miras_mlp_l2_gradient(
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    W1: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `miras_mlp`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    matmul = key @ W2.mT
    gelu = functional.gelu(matmul)
    matmul_2 = gelu @ W1.mT
    sub = matmul_2 - matmul_2.mean(-1, keepdim=True)
    pow = (1e-05 + (sub**2.0).mean(-1, keepdim=True)) ** -0.5
    mul = M_out_layernorm_weight * (
        key + layernorm(matmul_2, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05) - target
    )
    mul_2 = sub * pow
    mul_3 = pow * (mul - mul.mean(-1, keepdim=True) - mul_2 * (mul * mul_2).mean(-1, keepdim=True))
    return key, gelu_pullback(mul_3 @ W1, matmul), gelu, mul_3


class Memora(Module):
    """`memora(x)` with chunk = 16, expand = 2, heads = 2, window = 4.

    M: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel).
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
        self.declare("alpha.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("alpha.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 32, 16), "matrix", normal(0.25))
        self.declare("M.W1", (2, 16, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.out.layernorm.weight", (16,), "norm", constant(1.0))
        self.declare("M.out.layernorm.bias", (16,), "norm", constant(0.0))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "v.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "committed": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "slots": {"A.W2": self.zeros(batch, 2, 32, 16), "A.W1": self.zeros(batch, 2, 16, 32)},
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self,
        k: Tensor,
        M_write_split: Tensor,
        eta: Tensor,
        alpha: Tensor,
        q: Tensor,
        M_W2_seen: Tensor,
        M_W1_seen: Tensor,
        M_A_W2: Tensor,
        M_A_W1: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        out_M = miras_mlp(q, M_W2_seen, M_W1_seen, self.M.out.layernorm.weight, self.M.out.layernorm.bias)
        x_W2, dy_W2, x_W1, dy_W1 = miras_mlp_l2_gradient(
            k, M_write_split, M_W2_seen, M_W1_seen, self.M.out.layernorm.weight, self.M.out.layernorm.bias
        )
        rate_W2 = eta.mT
        keep_W2 = alpha.mT
        gate = gate_kernel(retain=keep_W2, valid=valid)
        M_W2_course = Course(M_A_W2, (Impulse(x_W2, dy_W2, rate=rate_W2),), gate=gate, valid=valid)
        rate_W1 = eta.mT
        keep_W1 = alpha.mT
        gate_2 = gate_kernel(retain=keep_W1, valid=valid)
        M_W1_course = Course(M_A_W1, (Impulse(x_W1, dy_W1, rate=rate_W1),), gate=gate_2, valid=valid)
        M_W2_next = M_W2_course.end()
        M_W2_linked = softmax(M_W2_next)
        M_W1_next = M_W1_course.end()
        M_W1_linked = softmax(M_W1_next)
        return out_M, M_W2_linked, M_W1_linked, M_W2_next, M_W1_next

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
        alpha = 1 - torch.sigmoid(linear(x, self.alpha.linear.weight, self.alpha.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        k_cut = grid.cut(k, "headed")
        M_write_split_cut = grid.cut(M_write_split, "headed")
        eta_cut = grid.cut(eta, "vector")
        alpha_cut = grid.cut(alpha, "vector")
        q_cut = grid.cut(q, "headed")
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_seen = state["M"]["committed"]["W2"]
        M_W1_seen = state["M"]["committed"]["W1"]
        M_A_W2 = state["M"]["slots"]["A.W2"]
        M_A_W1 = state["M"]["slots"]["A.W1"]
        M_A_W2 = choose(grid.unseen, M_W2, M_A_W2)
        M_A_W1 = choose(grid.unseen, M_W1, M_A_W1)
        out_M_all = []
        for n in range(len(grid)):
            out_M_n, M_W2_new, M_W1_new, M_A_W2_new, M_A_W1_new = self._step_M(
                k_cut[n],
                M_write_split_cut[n],
                eta_cut[n],
                alpha_cut[n],
                q_cut[n],
                M_W2_seen,
                M_W1_seen,
                M_A_W2,
                M_A_W1,
                grid.valid[n],
            )
            out_M_all.append(out_M_n)
            M_W2 = choose(grid.begun[n], M_W2_new, M_W2)
            M_W1 = choose(grid.begun[n], M_W1_new, M_W1)
            M_A_W2 = M_A_W2_new
            M_A_W1 = M_A_W1_new
            M_W2_seen = choose(grid.ends(16)[n], M_W2, M_W2_seen)
            M_W1_seen = choose(grid.ends(16)[n], M_W1, M_W1_seen)
        out_M = grid.join(out_M_all, "headed")
        M_A_W2 = choose(grid.begun[-1], M_A_W2, torch.zeros_like(M_A_W2))
        M_A_W1 = choose(grid.begun[-1], M_A_W1, torch.zeros_like(M_A_W1))
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "committed": {"W2": M_W2_seen, "W1": M_W1_seen},
            "slots": {"A.W2": M_A_W2, "A.W1": M_A_W1},
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
    """The compiled `memora`, its parameters drawn from `seed`."""
    return Layer(Memora().initialise(seed), "memora")
