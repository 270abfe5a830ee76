"""`titans_mlp`, compiled by nldsl from specs/blocks/titans_mlp.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.course import Course, Impulse, Momentum, gate_kernel, momentum_filter
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, silu_pullback, split
from torch import Tensor
from torch.nn import functional


def mlp_l2_gradient(
    key: Tensor, target: Tensor, W2: Tensor, W1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `mlp`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    sub = silu @ W1.mT - target
    return key, silu_pullback(sub @ W1, matmul), silu, sub


def mlp_live(z: Tensor, W2: Any, W1: Any) -> Tensor:
    """The map `mlp`, row by row, at the weights of every token: `W(z)` for `W @ z`."""
    out_matmul = W2(z)
    out_silu = functional.silu(out_matmul)
    out = W1(out_silu)
    return out


class TitansMlp(Module):
    """`titans_mlp(x)` with chunk = 16, expand = 2, heads = 2, window = 4.

    M: chunk (gradients are held at a base, reads of `M` follow: chunks of 16 tokens are parallel).
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
        self.declare("theta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
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
                "slots": {"m.W2": self.zeros(batch, 2, 32, 16), "m.W1": self.zeros(batch, 2, 16, 32)},
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self,
        k: Tensor,
        M_write_split: Tensor,
        theta: Tensor,
        eta: Tensor,
        keep: Tensor,
        q: Tensor,
        M_W2_base: Tensor,
        M_W1_base: Tensor,
        M_W2: Tensor,
        M_W1: Tensor,
        M_m_W2: Tensor,
        M_m_W1: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        x_W2, dy_W2, x_W1, dy_W1 = mlp_l2_gradient(k, M_write_split, M_W2_base, M_W1_base)
        gate = gate_kernel(retain=keep.mT, valid=valid)
        beta_W2 = eta.mT[..., None].squeeze(-1)
        slot_rate_W2 = (theta.mT[..., None] / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True))).squeeze(-1)
        read_W2 = x_W2.new_full(x_W2.shape[:-1], 1.0)
        momentum_filter_ = momentum_filter(beta_W2, slot_rate_W2, read_W2, valid=valid)
        M_W2_course = Course(
            M_W2, (Impulse(x_W2, dy_W2, momentum=Momentum(M_m_W2, momentum_filter_)),), gate=gate, valid=valid
        )
        beta_W1 = eta.mT[..., None].squeeze(-1)
        slot_rate_W1 = (theta.mT[..., None] / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True))).squeeze(-1)
        read_W1 = x_W1.new_full(x_W1.shape[:-1], 1.0)
        momentum_filter_2 = momentum_filter(beta_W1, slot_rate_W1, read_W1, valid=valid)
        M_W1_course = Course(
            M_W1,
            (Impulse(x_W1, dy_W1, momentum=Momentum(M_m_W1, momentum_filter_2)),),
            gate=gate,
            valid=valid,
        )
        out_M = mlp_live(q, M_W2_course.after, M_W1_course.after)
        M_W2_next, M_m_W2_next = M_W2_course.close()
        M_W1_next, M_m_W1_next = M_W1_course.close()
        return out_M, M_W2_next, M_W1_next, M_m_W2_next, M_m_W1_next

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q_conv, new["q.conv"] = conv(
            linear(x, self.q.linear.weight),
            self.q.conv.weight,
            self.q.conv.bias,
            state=state["q.conv"],
            mask=mask,
        )
        q = l2norm(split(functional.silu(q_conv), n=2), eps=1e-06)
        k_conv, new["k.conv"] = conv(
            linear(x, self.k.linear.weight),
            self.k.conv.weight,
            self.k.conv.bias,
            state=state["k.conv"],
            mask=mask,
        )
        k = l2norm(split(functional.silu(k_conv), n=2), eps=1e-06)
        v_conv, new["v.conv"] = conv(
            linear(x, self.v.linear.weight),
            self.v.conv.weight,
            self.v.conv.bias,
            state=state["v.conv"],
            mask=mask,
        )
        v = functional.silu(v_conv)
        theta = torch.sigmoid(linear(x, self.theta.linear.weight)) / 16
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 2
        keep = 1 - torch.sigmoid(linear(x, self.keep.linear.weight, self.keep.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        k_cut = grid.cut(k, "headed")
        M_write_split_cut = grid.cut(M_write_split, "headed")
        theta_cut = grid.cut(theta, "vector")
        eta_cut = grid.cut(eta, "vector")
        keep_cut = grid.cut(keep, "vector")
        q_cut = grid.cut(q, "headed")
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_base = state["M"]["base"]["W2"]
        M_W1_base = state["M"]["base"]["W1"]
        M_m_W2 = state["M"]["slots"]["m.W2"]
        M_m_W1 = state["M"]["slots"]["m.W1"]
        out_M_all = []
        for n in range(len(grid)):
            out_M_n, M_W2_new, M_W1_new, M_m_W2_new, M_m_W1_new = self._step_M(
                k_cut[n],
                M_write_split_cut[n],
                theta_cut[n],
                eta_cut[n],
                keep_cut[n],
                q_cut[n],
                M_W2_base,
                M_W1_base,
                M_W2,
                M_W1,
                M_m_W2,
                M_m_W1,
                grid.valid[n],
            )
            out_M_all.append(out_M_n)
            M_W2 = M_W2_new
            M_W1 = M_W1_new
            M_m_W2 = M_m_W2_new
            M_m_W1 = M_m_W1_new
            M_W2_base = choose(grid.ends(16)[n], M_W2, M_W2_base)
            M_W1_base = choose(grid.ends(16)[n], M_W1, M_W1_base)
        out_M = grid.join(out_M_all, "headed")
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "base": {"W2": M_W2_base, "W1": M_W1_base},
            "slots": {"m.W2": M_m_W2, "m.W1": M_m_W1},
            "count": grid.count,
        }
        out = linear(
            merge(norm(out_M, self.out.norm.weight, eps=1e-06))
            * functional.silu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `titans_mlp`, its parameters drawn from `seed`."""
    return Layer(TitansMlp().initialise(seed), "titans_mlp")
