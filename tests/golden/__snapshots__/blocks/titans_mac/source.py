"""`titans_mac`, compiled by nldsl from specs/blocks/titans_mac.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.attention import attention, forget, interleaved
from nldsl.runtime.course import Course, Impulse, Momentum, momentum_filter
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.memory import retention
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import l2norm, linear, merge, norm, silu_pullback, split, times_sigmoid
from torch import Tensor
from torch.nn import functional


def mlp(z: Tensor, W2: Tensor, W1: Tensor) -> Tensor:
    """The map `mlp`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_silu = functional.silu(out_matmul)
    out = out_silu @ W1.mT
    return out


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


class TitansMac(Module):
    """`titans_mac(x)` with expand = 2, heads = 2, persistent = 4, segment = 64.

    M, A: chunk (gradients and reads see the last commit, attention what they tell: 64 tokens are
    parallel; its backward pass is always recorded: attention stands in the step).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("h.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("A_write.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("A_write.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("A_write.linear_3.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("A_write.linear_4.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("y.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("y.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("theta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("keep.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("keep.linear.bias", (2,), "rest", constant(0.0))
        self.declare("M_write.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.norm.weight", (32,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.norm_2.weight", (32,), "norm", constant(1.0))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 32, 16), "matrix", normal(0.25))
        self.declare("M.W1", (2, 16, 32), "matrix", normal(0.1767766952966369))
        self.declare("A.keys", (2, 4, 16), "rest", normal(0.25))
        self.declare("A.values", (2, 4, 16), "rest", normal(0.25))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "committed": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "slots": {"m.W2": self.zeros(batch, 2, 32, 16), "m.W1": self.zeros(batch, 2, 16, 32)},
                "count": self.counter(batch),
            },
            "A": {
                "keys": self.zeros(batch, 0, 2, 16),
                "values": self.zeros(batch, 0, 2, 16),
                "valid": None,
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self,
        h_l2norm: Tensor,
        A_write_split_2: Tensor,
        A_write_split_3: Tensor,
        y_split: Tensor,
        M_W2_seen: Tensor,
        M_W1_seen: Tensor,
        M_W2: Tensor,
        M_W1: Tensor,
        M_m_W2: Tensor,
        M_m_W1: Tensor,
        A_keys: Tensor,
        A_values: Tensor,
        A_valid: Tensor | None,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 64 tokens: what they read, and the running weights after their writes."""
        h_M = mlp(h_l2norm, M_W2_seen, M_W1_seen)
        h = merge(h_M.transpose(1, 2))
        A_write_linear = linear(h, self.A_write.linear.weight)
        A_write_split = split(A_write_linear, n=2).transpose(1, 2)
        A_write_linear_1 = linear(h, self.A_write.linear_2.weight)
        A_write_split_1 = split(A_write_linear_1, n=2).transpose(1, 2)
        A_keys_here = interleaved(A_write_split.transpose(1, 2), A_write_split_2.transpose(1, 2))
        A_values_here = interleaved(A_write_split_1.transpose(1, 2), A_write_split_3.transpose(1, 2))
        y_A, A_kept = attention(
            y_split.transpose(1, 2),
            A_keys_here,
            A_values_here,
            {"keys": A_keys, "values": A_values, "valid": A_valid},
            scale=0.25,
            start=(self.A.keys, self.A.values),
            pairs=2,
            mask=valid,
        )
        y_A = y_A.transpose(1, 2)
        y_merge = merge(y_A.transpose(1, 2))
        y = linear(y_merge, self.y.linear_2.weight)
        out_linear = linear(y, self.out.linear.weight)
        out_split = split(out_linear, n=2).transpose(1, 2)
        out_l2norm = l2norm(out_split, eps=1e-06)
        out_M = mlp(out_l2norm, M_W2_seen, M_W1_seen)
        k_linear = linear(y, self.k.linear.weight)
        k_split = split(k_linear, n=2).transpose(1, 2)
        k = l2norm(k_split, eps=1e-06)
        M_write_linear = linear(y, self.M_write.linear.weight)
        M_write_split = split(M_write_linear, n=2).transpose(1, 2)
        x_W2, dy_W2, x_W1, dy_W1 = mlp_l2_gradient(k, M_write_split, M_W2_seen, M_W1_seen)
        keep_linear = linear(y, self.keep.linear.weight, self.keep.linear.bias)
        keep_sigmoid = torch.sigmoid(keep_linear)
        keep_div = keep_sigmoid / 64
        keep = 1 - keep_div
        gate = retention(retain=keep.mT, valid=valid)
        theta_linear = linear(y, self.theta.linear.weight)
        theta_sigmoid = torch.sigmoid(theta_linear)
        theta = theta_sigmoid / 64
        eta_linear = linear(y, self.eta.linear.weight)
        eta_sigmoid = torch.sigmoid(eta_linear)
        eta = eta_sigmoid / 2
        beta_W2 = eta.mT
        slot_rate_W2 = (theta.mT[..., None] / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True))).squeeze(-1)
        read_W2 = x_W2.new_full(x_W2.shape[:-1], 1.0)
        momentum_filter_ = momentum_filter(beta_W2, slot_rate_W2, read_W2, valid=valid)
        M_W2_course = Course(
            M_W2, (Impulse(x_W2, dy_W2, momentum=Momentum(M_m_W2, momentum_filter_)),), gate=gate, valid=valid
        )
        beta_W1 = eta.mT
        slot_rate_W1 = (theta.mT[..., None] / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True))).squeeze(-1)
        read_W1 = x_W1.new_full(x_W1.shape[:-1], 1.0)
        momentum_filter_2 = momentum_filter(beta_W1, slot_rate_W1, read_W1, valid=valid)
        M_W1_course = Course(
            M_W1,
            (Impulse(x_W1, dy_W1, momentum=Momentum(M_m_W1, momentum_filter_2)),),
            gate=gate,
            valid=valid,
        )
        M_W2_next, M_m_W2_next = M_W2_course.close()
        M_W1_next, M_m_W1_next = M_W1_course.close()
        return (
            y,
            out_M,
            M_W2_next,
            M_W1_next,
            M_m_W2_next,
            M_m_W1_next,
            A_kept["keys"],
            A_kept["values"],
            A_kept["valid"],
        )

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        h_l2norm = l2norm(split(linear(x, self.h.linear.weight), n=2), eps=1e-06)
        A_write_split_2 = split(linear(x, self.A_write.linear_3.weight), n=2)
        A_write_split_3 = split(linear(x, self.A_write.linear_4.weight), n=2)
        y_split = split(linear(x, self.y.linear.weight), n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 64)
        h_l2norm_cut = grid.cut(h_l2norm, "headed")
        A_write_split_2_cut = grid.cut(A_write_split_2, "headed")
        A_write_split_3_cut = grid.cut(A_write_split_3, "headed")
        y_split_cut = grid.cut(y_split, "headed")
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_seen = state["M"]["committed"]["W2"]
        M_W1_seen = state["M"]["committed"]["W1"]
        M_m_W2 = state["M"]["slots"]["m.W2"]
        M_m_W1 = state["M"]["slots"]["m.W1"]
        A_keys = state["A"]["keys"]
        A_values = state["A"]["values"]
        A_valid = state["A"]["valid"]
        y_all = []
        out_M_all = []
        for n in range(len(grid)):
            (
                y_n,
                out_M_n,
                M_W2_new,
                M_W1_new,
                M_m_W2_new,
                M_m_W1_new,
                A_keys_new,
                A_values_new,
                A_valid_new,
            ) = self._step_M(
                h_l2norm_cut[n],
                A_write_split_2_cut[n],
                A_write_split_3_cut[n],
                y_split_cut[n],
                M_W2_seen,
                M_W1_seen,
                M_W2,
                M_W1,
                M_m_W2,
                M_m_W1,
                A_keys,
                A_values,
                A_valid,
                grid.valid[n],
            )
            y_all.append(y_n)
            out_M_all.append(out_M_n)
            M_W2 = M_W2_new
            M_W1 = M_W1_new
            M_m_W2 = M_m_W2_new
            M_m_W1 = M_m_W1_new
            M_W2_seen = choose(grid.ends(64)[n], M_W2, M_W2_seen)
            M_W1_seen = choose(grid.ends(64)[n], M_W1, M_W1_seen)
            A_keys = A_keys_new
            A_values = A_values_new
            A_valid = A_valid_new
            A_keys, A_values, A_valid = forget(grid.ends(64)[n], A_keys, A_values, A_valid)
        y = grid.join(y_all, "vector")
        out_M = grid.join(out_M_all, "headed")
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "committed": {"W2": M_W2_seen, "W1": M_W1_seen},
            "slots": {"m.W2": M_m_W2, "m.W1": M_m_W1},
            "count": grid.count,
        }
        new["A"] = {"keys": A_keys, "values": A_values, "valid": A_valid, "count": grid.count % 64}
        out = linear(
            times_sigmoid(
                norm(y, self.out.norm.weight, eps=1e-06),
                norm(merge(out_M), self.out.norm_2.weight, eps=1e-06),
            ),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `titans_mac`, its parameters drawn from `seed`."""
    return Layer(TitansMac().initialise(seed), "titans_mac")
