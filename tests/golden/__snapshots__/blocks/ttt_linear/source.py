"""`ttt_linear`, compiled by nldsl from specs/blocks/ttt_linear.nl.  Edit the specification, not this file."""

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


def ttt_linear_l2_gradient(
    key: Tensor,
    target: Tensor,
    W: Tensor,
    b: Tensor,
    M_out_layernorm_weight: Tensor,
    M_out_layernorm_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `ttt_linear`, row by row.

    Returns x_W, dy_W, g_b: `x_W` is the input of the weight `W`, `dy_W` the gradient at its output, and
    the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    add = b + key @ W.mT
    sub = add - add.mean(-1, keepdim=True)
    pow = (1e-05 + (sub**2.0).mean(-1, keepdim=True)) ** -0.5
    mul = M_out_layernorm_weight * (
        key + layernorm(add, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05) - target
    )
    mul_2 = sub * pow
    mul_3 = pow * (mul - mul.mean(-1, keepdim=True) - mul_2 * (mul * mul_2).mean(-1, keepdim=True))
    return key, mul_3, mul_3


def ttt_linear_live(
    z: Tensor, W: Any, b: Tensor, M_out_layernorm_weight: Tensor, M_out_layernorm_bias: Tensor
) -> Tensor:
    """The map `ttt_linear`, row by row, at the weights of every token: `W(z)` for `W @ z`."""
    out_matmul = W(z)
    out_add = out_matmul + b
    out_layernorm = layernorm(out_add, M_out_layernorm_weight, M_out_layernorm_bias, eps=1e-05)
    out = z + out_layernorm
    return out


class TttLinear(Module):
    """`ttt_linear(x)` with batch = 16, heads = 2, rate = 1, window = 4.

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
        self.declare("M.W", (2, 16, 16), "matrix", normal(0.25))
        self.declare("M.b", (2, 16), "rest", normal(0.25))
        self.declare("M.out.layernorm.weight", (16,), "norm", constant(1.0))
        self.declare("M.out.layernorm.bias", (16,), "norm", constant(0.0))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "q.conv": {"tail": self.zeros(batch, 3, 32)},
            "k.conv": {"tail": self.zeros(batch, 3, 32)},
            "M": {
                "running": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "base": {"W": self.start(self.M.W, batch), "b": self.start(self.M.b, batch)},
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self,
        k: Tensor,
        M_write_split: Tensor,
        eta: Tensor,
        q: Tensor,
        M_W_base: Tensor,
        M_b_base: Tensor,
        M_W: Tensor,
        M_b: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        x_W, dy_W, g_b = ttt_linear_l2_gradient(
            k, M_write_split, M_W_base, M_b_base, self.M.out.layernorm.weight, self.M.out.layernorm.bias
        )
        rate_W = eta.mT[..., None].squeeze(-1)
        M_W_course = Course(M_W, (Impulse(x_W, dy_W, rate=rate_W),), valid=valid)
        rate_b = eta.mT[..., None].squeeze(-1)
        M_b_course = Course(
            M_b.mT, (Impulse(g_b.new_ones((*g_b.shape[:-1], 1)), g_b, rate=rate_b),), valid=valid
        )
        out_M = ttt_linear_live(
            q,
            M_W_course.after,
            M_b_course.after(q.new_ones((*q.shape[:-1], 1))),
            self.M.out.layernorm.weight,
            self.M.out.layernorm.bias,
        )
        M_W_next = M_W_course.end()
        M_b_next = M_b_course.end()
        return out_M, M_W_next, M_b_next.mT

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
        eta = 1 * torch.sigmoid(linear(x, self.eta.linear.weight, self.eta.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        k_cut = grid.cut(k, "headed")
        M_write_split_cut = grid.cut(M_write_split, "headed")
        eta_cut = grid.cut(eta, "vector")
        q_cut = grid.cut(q, "headed")
        M_W = state["M"]["running"]["W"]
        M_b = state["M"]["running"]["b"].unsqueeze(-2)
        M_W_base = state["M"]["base"]["W"]
        M_b_base = state["M"]["base"]["b"].unsqueeze(-2)
        out_M_all = []
        for n in range(len(grid)):
            out_M_n, M_W_new, M_b_new = self._step_M(
                k_cut[n],
                M_write_split_cut[n],
                eta_cut[n],
                q_cut[n],
                M_W_base,
                M_b_base,
                M_W,
                M_b,
                grid.valid[n],
            )
            out_M_all.append(out_M_n)
            M_W = M_W_new
            M_b = M_b_new
            M_W_base = choose(grid.ends(16)[n], M_W, M_W_base)
            M_b_base = choose(grid.ends(16)[n], M_b, M_b_base)
        out_M = grid.join(out_M_all, "headed")
        new["M"] = {
            "running": {"W": M_W, "b": M_b.squeeze(-2)},
            "base": {"W": M_W_base, "b": M_b_base.squeeze(-2)},
            "count": grid.count,
        }
        out = linear(
            layernorm(merge(out_M), self.out.layernorm.weight, self.out.layernorm.bias, eps=1e-05)
            * functional.gelu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `ttt_linear`, its parameters drawn from `seed`."""
    return Layer(TttLinear().initialise(seed), "ttt_linear")
