"""`ttt_mlp`, compiled by nldsl from specs/blocks/ttt_mlp.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.course import Course, Impulse
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, layernorm, linear, merge, split
from torch import Tensor
from torch.nn import functional


def ttt_mlp_l2_gradient(
    key: Tensor,
    target: Tensor,
    W2: Tensor,
    b2: Tensor,
    W1: Tensor,
    b1: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `ttt_mlp`, row by row.

    Returns x_W2, dy_W2, g_b2, x_W1, dy_W1, g_b1: `x_W` is the input of the weight `W`, `dy_W` the
    gradient at its output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    add = b2 + key @ W2.mT
    gelu = functional.gelu(add)
    add_2 = b1 + gelu @ W1.mT
    sub = add_2 - add_2.mean(-1, keepdim=True)
    pow = (1e-05 + (sub**2.0).mean(-1, keepdim=True)) ** -0.5
    mul = M_out_layernorm_weight * (
        key + layernorm(add_2, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05) - target
    )
    mul_2 = sub * pow
    mul_3 = pow * (mul - mul.mean(-1, keepdim=True) - mul_2 * (mul * mul_2).mean(-1, keepdim=True))
    mul_4 = (
        0.5 * (1.0 + torch.erf(0.7071067811865476 * add))
        + 0.3989422804014327 * (add * torch.exp(-0.5 * add**2.0))
    ) * (mul_3 @ W1)
    return key, mul_4, mul_4, gelu, mul_3, mul_3


def ttt_mlp_live(
    z: Tensor,
    W2: Any,
    b2: Tensor,
    W1: Any,
    b1: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
) -> Tensor:
    """The map `ttt_mlp`, row by row, at the weights of every token: `W(z)` for `W @ z`."""
    out_matmul = W2(z)
    out_add = out_matmul + b2
    out_gelu = functional.gelu(out_add)
    out_matmul_1 = W1(out_gelu)
    out_add_1 = out_matmul_1 + b1
    out_layernorm = layernorm(out_add_1, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    out = z + out_layernorm
    return out


class TttMlp(Module):
    """`ttt_mlp(x)` with batch = 16, expand = 4, heads = 2, rate = 0.1, window = 4.

    M: chunk (gradients are held at a base, reads of `M` follow: chunks of 16 tokens are parallel).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("u.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("q.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("q.conv.bias", (32,), "rest", constant(0.0))
        self.declare("k.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("k.conv.bias", (32,), "rest", constant(0.0))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.layernorm.weight", (32,), "norm", constant(1.0))
        self.declare("out.layernorm.bias", (32,), "norm", constant(0.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 64, 16), "matrix", normal(0.25))
        self.declare("M.b2", (2, 64), "rest", normal(0.125))
        self.declare("M.W1", (2, 16, 64), "matrix", normal(0.125))
        self.declare("M.b1", (2, 16), "rest", normal(0.25))
        self.declare("M.out.layernorm.weight", (16,), "norm", constant(1.0))
        self.declare("M.out.layernorm.bias", (16,), "norm", constant(0.0))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {
                    "W2": self.start(self.M.W2, batch),
                    "b2": self.start(self.M.b2, batch),
                    "W1": self.start(self.M.W1, batch),
                    "b1": self.start(self.M.b1, batch),
                },
                "base": {
                    "W2": self.start(self.M.W2, batch),
                    "b2": self.start(self.M.b2, batch),
                    "W1": self.start(self.M.W1, batch),
                    "b1": self.start(self.M.b1, batch),
                },
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self,
        k: Tensor,
        M_write_split: Tensor,
        eta: Tensor,
        q: Tensor,
        M_W2_base: Tensor,
        M_b2_base: Tensor,
        M_W1_base: Tensor,
        M_b1_base: Tensor,
        M_W2: Tensor,
        M_b2: Tensor,
        M_W1: Tensor,
        M_b1: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        x_W2, dy_W2, g_b2, x_W1, dy_W1, g_b1 = ttt_mlp_l2_gradient(
            k,
            M_write_split,
            M_W2_base,
            M_b2_base,
            M_W1_base,
            M_b1_base,
            self.M.out.layernorm.weight,
            self.M.out.layernorm.bias,
        )
        rate_W2 = eta.mT[..., None].squeeze(-1)
        M_W2_course = Course(M_W2, (Impulse(x_W2, dy_W2, rate=rate_W2),), valid=valid)
        rate_b2 = eta.mT[..., None].squeeze(-1)
        M_b2_course = Course(
            M_b2.mT, (Impulse(g_b2.new_ones((*g_b2.shape[:-1], 1)), g_b2, rate=rate_b2),), valid=valid
        )
        rate_W1 = eta.mT[..., None].squeeze(-1)
        M_W1_course = Course(M_W1, (Impulse(x_W1, dy_W1, rate=rate_W1),), valid=valid)
        rate_b1 = eta.mT[..., None].squeeze(-1)
        M_b1_course = Course(
            M_b1.mT, (Impulse(g_b1.new_ones((*g_b1.shape[:-1], 1)), g_b1, rate=rate_b1),), valid=valid
        )
        out_M = ttt_mlp_live(
            q,
            M_W2_course.after,
            M_b2_course.after(q.new_ones((*q.shape[:-1], 1))),
            M_W1_course.after,
            M_b1_course.after(q.new_ones((*q.shape[:-1], 1))),
            self.M.out.layernorm.weight,
            self.M.out.layernorm.bias,
        )
        M_W2_next = M_W2_course.end()
        M_b2_next = M_b2_course.end()
        M_W1_next = M_W1_course.end()
        M_b1_next = M_b1_course.end()
        return out_M, M_W2_next, M_b2_next.mT, M_W1_next, M_b1_next.mT

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        u = linear(x, self.u.linear.weight)
        q_conv, new["q.conv"] = conv(
            u, self.q.conv.weight, self.q.conv.bias, state=state["q.conv"], mask=mask
        )
        q = split(q_conv, n=2)
        k_conv, new["k.conv"] = conv(
            u, self.k.conv.weight, self.k.conv.bias, state=state["k.conv"], mask=mask
        )
        k = split(k_conv, n=2)
        v = linear(x, self.v.linear.weight)
        eta = 0.1 * torch.sigmoid(linear(x, self.eta.linear.weight, self.eta.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        k_cut = grid.cut(k, "headed")
        M_write_split_cut = grid.cut(M_write_split, "headed")
        eta_cut = grid.cut(eta, "vector")
        q_cut = grid.cut(q, "headed")
        M_W2 = state["M"]["running"]["W2"]
        M_b2 = state["M"]["running"]["b2"].unsqueeze(-2)
        M_W1 = state["M"]["running"]["W1"]
        M_b1 = state["M"]["running"]["b1"].unsqueeze(-2)
        M_W2_base = state["M"]["base"]["W2"]
        M_b2_base = state["M"]["base"]["b2"].unsqueeze(-2)
        M_W1_base = state["M"]["base"]["W1"]
        M_b1_base = state["M"]["base"]["b1"].unsqueeze(-2)
        out_M_all = []
        for n in range(len(grid)):
            out_M_n, M_W2_new, M_b2_new, M_W1_new, M_b1_new = self._step_M(
                k_cut[n],
                M_write_split_cut[n],
                eta_cut[n],
                q_cut[n],
                M_W2_base,
                M_b2_base,
                M_W1_base,
                M_b1_base,
                M_W2,
                M_b2,
                M_W1,
                M_b1,
                grid.valid[n],
            )
            out_M_all.append(out_M_n)
            M_W2 = M_W2_new
            M_b2 = M_b2_new
            M_W1 = M_W1_new
            M_b1 = M_b1_new
            M_W2_base = choose(grid.ends(16)[n], M_W2, M_W2_base)
            M_b2_base = choose(grid.ends(16)[n], M_b2, M_b2_base)
            M_W1_base = choose(grid.ends(16)[n], M_W1, M_W1_base)
            M_b1_base = choose(grid.ends(16)[n], M_b1, M_b1_base)
        out_M = grid.join(out_M_all, "headed")
        new["M"] = {
            "running": {"W2": M_W2, "b2": M_b2.squeeze(-2), "W1": M_W1, "b1": M_b1.squeeze(-2)},
            "base": {
                "W2": M_W2_base,
                "b2": M_b2_base.squeeze(-2),
                "W1": M_W1_base,
                "b1": M_b1_base.squeeze(-2),
            },
            "count": grid.count,
        }
        out = linear(
            layernorm(merge(out_M), self.out.layernorm.weight, self.out.layernorm.bias, eps=1e-05)
            * functional.gelu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `ttt_mlp`, its parameters drawn from `seed`."""
    return Layer(TttMlp().initialise(seed), "ttt_mlp")
