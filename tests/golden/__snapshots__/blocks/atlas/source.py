"""`atlas`, compiled by nldsl from specs/blocks/atlas.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.course import gather
from nldsl.runtime.grid import ChunkGrid, choose, fires, of_firing
from nldsl.runtime.lessons import last_lessons, last_token, with_earlier, with_earlier_weights
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
    orthogonalize,
    silu_pullback,
    split,
    times_silu,
)
from torch import Tensor
from torch.nn import functional


def muon(W: Tensor, g: Tensor, lr: Tensor, beta: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the rule `muon` for one token; gates are `[..., 1, 1]`."""
    m_mul = beta * m
    m_1 = m_mul + g
    W_mul = lr * 0
    W_sub = 1 - W_mul
    W_mul_1 = W_sub * W
    W_orthogonalize = orthogonalize(m_1, iterations=5)
    W_mul_2 = lr * W_orthogonalize
    W_1 = W_mul_1 - W_mul_2
    return W_1, m_1


def perceptron(z: Tensor, W2: Tensor, W1: Tensor) -> Tensor:
    """The map `perceptron`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_silu = functional.silu(out_matmul)
    out = out_silu @ W1.mT
    return out


def perceptron_l2_gradient(
    key: Tensor, target: Tensor, W2: Tensor, W1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `perceptron`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    sub = silu @ W1.mT - target
    return key, silu_pullback(sub @ W1, matmul), silu, sub


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


class Atlas(Module):
    """`atlas(x)` with chunk = 16, context = 4, heads = 2, hidden = 64, iterations = 5, window = 4.

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
        self.declare("theta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
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
                "committed": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "slots": {"m.W2": self.zeros(batch, 2, 64, 273), "m.W1": self.zeros(batch, 2, 16, 64)},
                "windows": {
                    "0": {
                        "key": self.zeros(batch, 2, 3, 273) + 1.0,
                        "target": self.zeros(batch, 2, 3, 16) + 1.0,
                        "weight": self.zeros(batch, 2, 3),
                    },
                },
                "gathered": {"0": {"W2": self.zeros(batch, 2, 64, 273), "W1": self.zeros(batch, 2, 16, 64)}},
                "count": self.counter(batch),
            },
        }

    def _step_M(
        self,
        M_write_split: Tensor,
        M_write_split_1: Tensor,
        eta: Tensor,
        theta: Tensor,
        gamma: Tensor,
        alpha: Tensor,
        out_split: Tensor,
        M_W2_seen: Tensor,
        M_W1_seen: Tensor,
        M_key_1: Tensor,
        M_target_1: Tensor,
        M_weight_1: Tensor,
        M_W2_gathered_1: Tensor,
        M_W1_gathered_1: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        out_M = perceptron(out_split, M_W2_seen, M_W1_seen)
        key_lessons = with_earlier(M_key_1, M_write_split)
        key_kept = last_lessons(key_lessons, 3, valid)
        target_lessons = with_earlier(M_target_1, M_write_split_1)
        target_kept = last_lessons(target_lessons, 3, valid)
        weight_lessons = with_earlier_weights(M_weight_1, gamma.mT, M_write_split)
        weight_kept = last_lessons(weight_lessons, 3, valid, axis=-1)
        x_W2, dy_W2, x_W1, dy_W1 = perceptron_l2_gradient(key_lessons, target_lessons, M_W2_seen, M_W1_seen)
        M_W2_gathered_1_next = gather(
            M_W2_gathered_1, x_W2, dy_W2, weight=weight_lessons, window=4, valid=valid
        )
        M_W1_gathered_1_next = gather(
            M_W1_gathered_1, x_W1, dy_W1, weight=weight_lessons, window=4, valid=valid
        )
        return (
            out_M,
            key_kept,
            target_kept,
            weight_kept,
            M_W2_gathered_1_next,
            M_W1_gathered_1_next,
            last_token(alpha.mT[..., None], valid),
            last_token(eta.mT[..., None], valid),
            last_token(theta.mT[..., None], valid),
        )

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
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 4
        theta = torch.sigmoid(linear(x, self.theta.linear.weight))
        gamma = torch.sigmoid(linear(x, self.gamma.linear.weight))
        alpha = 1 - torch.sigmoid(linear(x, self.alpha.linear.weight, self.alpha.linear.bias)) / 4
        M_write_taylor, _ = self.taylor(k, state, mask)
        M_write_split = split(M_write_taylor, n=2)
        M_write_split_1 = split(v, n=2)
        out_taylor, _ = self.taylor_2(q, state, mask)
        out_split = split(out_taylor, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        M_write_split_cut = grid.cut(M_write_split, "headed")
        M_write_split_1_cut = grid.cut(M_write_split_1, "headed")
        eta_cut = grid.cut(eta, "vector")
        theta_cut = grid.cut(theta, "vector")
        gamma_cut = grid.cut(gamma, "vector")
        alpha_cut = grid.cut(alpha, "vector")
        out_split_cut = grid.cut(out_split, "headed")
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_seen = state["M"]["committed"]["W2"]
        M_W1_seen = state["M"]["committed"]["W1"]
        M_m_W2 = state["M"]["slots"]["m.W2"]
        M_m_W1 = state["M"]["slots"]["m.W1"]
        M_key_1 = state["M"]["windows"]["0"]["key"]
        M_target_1 = state["M"]["windows"]["0"]["target"]
        M_weight_1 = state["M"]["windows"]["0"]["weight"]
        M_W2_gathered_1 = state["M"]["gathered"]["0"]["W2"]
        M_W1_gathered_1 = state["M"]["gathered"]["0"]["W1"]
        out_M_all = []
        for n in range(len(grid)):
            (
                out_M_n,
                M_key_1_new,
                M_target_1_new,
                M_weight_1_new,
                M_W2_gathered_1_new,
                M_W1_gathered_1_new,
                alpha_last,
                eta_last,
                theta_last,
            ) = self._step_M(
                M_write_split_cut[n],
                M_write_split_1_cut[n],
                eta_cut[n],
                theta_cut[n],
                gamma_cut[n],
                alpha_cut[n],
                out_split_cut[n],
                M_W2_seen,
                M_W1_seen,
                M_key_1,
                M_target_1,
                M_weight_1,
                M_W2_gathered_1,
                M_W1_gathered_1,
                grid.valid[n],
            )
            out_M_all.append(out_M_n)
            M_key_1 = M_key_1_new
            M_target_1 = M_target_1_new
            M_weight_1 = M_weight_1_new
            M_W2_gathered_1 = M_W2_gathered_1_new
            M_W1_gathered_1 = M_W1_gathered_1_new
            if fires(grid.ends(16)[n]):
                M_W2_step, M_m_W2_next = muon(
                    M_W2, of_firing(grid.ends(16)[n], M_W2_gathered_1), eta_last, theta_last, M_m_W2
                )
                M_W2_next = M_W2_step + (alpha_last - 1.0) * M_W2
                M_W1_step, M_m_W1_next = muon(
                    M_W1, of_firing(grid.ends(16)[n], M_W1_gathered_1), eta_last, theta_last, M_m_W1
                )
                M_W1_next = M_W1_step + (alpha_last - 1.0) * M_W1
                M_W2 = choose(grid.ends(16)[n], M_W2_next, M_W2)
                M_W1 = choose(grid.ends(16)[n], M_W1_next, M_W1)
                M_m_W2 = choose(grid.ends(16)[n], M_m_W2_next, M_m_W2)
                M_m_W1 = choose(grid.ends(16)[n], M_m_W1_next, M_m_W1)
                M_W2_gathered_1 = choose(grid.ends(16)[n], torch.zeros_like(M_W2_gathered_1), M_W2_gathered_1)
                M_W1_gathered_1 = choose(grid.ends(16)[n], torch.zeros_like(M_W1_gathered_1), M_W1_gathered_1)
            M_W2_seen = choose(grid.ends(16)[n], M_W2, M_W2_seen)
            M_W1_seen = choose(grid.ends(16)[n], M_W1, M_W1_seen)
        out_M = grid.join(out_M_all, "headed")
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "committed": {"W2": M_W2_seen, "W1": M_W1_seen},
            "slots": {"m.W2": M_m_W2, "m.W1": M_m_W1},
            "windows": {"0": {"key": M_key_1, "target": M_target_1, "weight": M_weight_1}},
            "gathered": {"0": {"W2": M_W2_gathered_1, "W1": M_W1_gathered_1}},
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
    """The compiled `atlas`, its parameters drawn from `seed`."""
    return Layer(Atlas().initialise(seed), "atlas")
