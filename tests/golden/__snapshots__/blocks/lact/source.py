"""`lact`, compiled by nldsl from specs/blocks/lact.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.attention import attention
from nldsl.runtime.course import gather
from nldsl.runtime.grid import ChunkGrid, choose, fires, of_firing
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import (
    l2norm,
    linear,
    merge,
    norm,
    orthogonalize,
    rope,
    rownorm,
    silu_pullback,
    softplus,
    split,
    times_silu,
)
from torch import Tensor
from torch.nn import functional


def muon(W: Tensor, g: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the rule `muon` for one token; gates are `[..., 1, 1]`."""
    m_mul = 0 * m
    m_1 = m_mul + g
    W_mul = 1 * W
    W_orthogonalize = orthogonalize(m_1, iterations=5)
    W_mul_1 = 1 * W_orthogonalize
    W_1 = W_mul - W_mul_1
    return W_1, m_1


def swiglu_map(z: Tensor, W1: Tensor, W2: Tensor, W3: Tensor) -> Tensor:
    """The map `swiglu_map`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W1.mT
    out_silu = functional.silu(out_matmul)
    out_matmul_1 = z @ W2.mT
    out_mul = out_silu * out_matmul_1
    out = out_mul @ W3.mT
    return out


def swiglu_map_dot_gradient(
    key: Tensor, target: Tensor, W1: Tensor, W2: Tensor, W3: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `dot` at the map `swiglu_map`, row by row.

    Returns x_W1, dy_W1, x_W2, dy_W2, x_W3, dy_W3: `x_W` is the input of the weight `W`, `dy_W` the
    gradient at its output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    matmul = key @ W2.mT
    neg = -target
    matmul_2 = neg @ W3
    matmul_3 = key @ W1.mT
    silu = functional.silu(matmul_3)
    return key, silu_pullback(matmul * matmul_2, matmul_3), key, matmul_2 * silu, matmul * silu, neg


class Lact(Module):
    """`lact(x)` with chunk = 64, expand = 2, heads = 2, iterations = 5, window = 64.

    M: chunk (reads and gradients see the last commit: chunks of 64 tokens are parallel).

    A: attention (softmax memory: scaled dot-product attention over the cached keys and values).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("k.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("v.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("fq.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("fq.weight_2.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("fk.weight.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("fk.weight_2.weight", (32,), "rest", normal(0.1767766952966369))
        self.declare("eta.linear.weight", (2, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.linear.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.linear_2.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W1", (2, 32, 16), "matrix", normal(0.25))
        self.declare("M.W2", (2, 32, 16), "matrix", normal(0.25))
        self.declare("M.W3", (2, 16, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "A_write.rope": {"count": self.counter(batch)},
            "out.rope": {"count": self.counter(batch)},
            "M": {
                "running": {
                    "W1": self.start(self.M.W1, batch),
                    "W2": self.start(self.M.W2, batch),
                    "W3": self.start(self.M.W3, batch),
                },
                "committed": {
                    "W1": self.start(self.M.W1, batch),
                    "W2": self.start(self.M.W2, batch),
                    "W3": self.start(self.M.W3, batch),
                },
                "slots": {
                    "m.W1": self.zeros(batch, 2, 32, 16),
                    "m.W2": self.zeros(batch, 2, 32, 16),
                    "m.W3": self.zeros(batch, 2, 16, 32),
                },
                "gathered": {
                    "0": {
                        "W1": self.zeros(batch, 2, 32, 16),
                        "W2": self.zeros(batch, 2, 32, 16),
                        "W3": self.zeros(batch, 2, 16, 32),
                    },
                },
                "count": self.counter(batch),
            },
            "A": {"keys": self.zeros(batch, 0, 2, 16), "values": self.zeros(batch, 0, 2, 16), "valid": None},
        }

    def _step_M(
        self,
        fk: Tensor,
        fv: Tensor,
        eta: Tensor,
        fq: Tensor,
        M_W1_seen: Tensor,
        M_W2_seen: Tensor,
        M_W3_seen: Tensor,
        M_W1_gathered_1: Tensor,
        M_W2_gathered_1: Tensor,
        M_W3_gathered_1: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """At most 64 tokens: what they read, and the running weights after their writes."""
        out_M = swiglu_map(fq, M_W1_seen, M_W2_seen, M_W3_seen)
        x_W1, dy_W1, x_W2, dy_W2, x_W3, dy_W3 = swiglu_map_dot_gradient(
            fk, fv, M_W1_seen, M_W2_seen, M_W3_seen
        )
        M_W1_gathered_1_next = gather(M_W1_gathered_1, x_W1, dy_W1, weight=eta.mT, valid=valid)
        M_W2_gathered_1_next = gather(M_W2_gathered_1, x_W2, dy_W2, weight=eta.mT, valid=valid)
        M_W3_gathered_1_next = gather(M_W3_gathered_1, x_W3, dy_W3, weight=eta.mT, valid=valid)
        return out_M, M_W1_gathered_1_next, M_W2_gathered_1_next, M_W3_gathered_1_next

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        q = linear(x, self.q.linear.weight)
        k = linear(x, self.k.linear.weight)
        v = linear(x, self.v.linear.weight)
        fq = l2norm(
            split(functional.silu(q * self.fq.weight.weight + self.fq.weight_2.weight), n=2), eps=1e-06
        )
        fk = l2norm(
            split(functional.silu(k * self.fk.weight.weight + self.fk.weight_2.weight), n=2), eps=1e-06
        )
        fv = split(functional.silu(v), n=2)
        eta = softplus(linear(x, self.eta.linear.weight, self.eta.linear.bias))
        A_write_rope, new["A_write.rope"] = rope(
            split(k, n=2), base=10000.0, state=state["A_write.rope"], mask=mask
        )
        A_write_split_1 = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 64)
        fk_cut = grid.cut(fk, "headed")
        fv_cut = grid.cut(fv, "headed")
        eta_cut = grid.cut(eta, "vector")
        fq_cut = grid.cut(fq, "headed")
        M_W1 = state["M"]["running"]["W1"]
        M_W2 = state["M"]["running"]["W2"]
        M_W3 = state["M"]["running"]["W3"]
        M_W1_seen = state["M"]["committed"]["W1"]
        M_W2_seen = state["M"]["committed"]["W2"]
        M_W3_seen = state["M"]["committed"]["W3"]
        M_m_W1 = state["M"]["slots"]["m.W1"]
        M_m_W2 = state["M"]["slots"]["m.W2"]
        M_m_W3 = state["M"]["slots"]["m.W3"]
        M_W1_gathered_1 = state["M"]["gathered"]["0"]["W1"]
        M_W2_gathered_1 = state["M"]["gathered"]["0"]["W2"]
        M_W3_gathered_1 = state["M"]["gathered"]["0"]["W3"]
        out_M_all = []
        for n in range(len(grid)):
            out_M_n, M_W1_gathered_1_new, M_W2_gathered_1_new, M_W3_gathered_1_new = self._step_M(
                fk_cut[n],
                fv_cut[n],
                eta_cut[n],
                fq_cut[n],
                M_W1_seen,
                M_W2_seen,
                M_W3_seen,
                M_W1_gathered_1,
                M_W2_gathered_1,
                M_W3_gathered_1,
                grid.valid[n],
            )
            out_M_all.append(out_M_n)
            M_W1_gathered_1 = M_W1_gathered_1_new
            M_W2_gathered_1 = M_W2_gathered_1_new
            M_W3_gathered_1 = M_W3_gathered_1_new
            if fires(grid.ends(64)[n]):
                M_W1_step, M_m_W1_next = muon(M_W1, of_firing(grid.ends(64)[n], M_W1_gathered_1), M_m_W1)
                M_W1_next = rownorm(M_W1_step, eps=1e-06)
                M_W2_step, M_m_W2_next = muon(M_W2, of_firing(grid.ends(64)[n], M_W2_gathered_1), M_m_W2)
                M_W2_next = rownorm(M_W2_step, eps=1e-06)
                M_W3_step, M_m_W3_next = muon(M_W3, of_firing(grid.ends(64)[n], M_W3_gathered_1), M_m_W3)
                M_W3_next = rownorm(M_W3_step, eps=1e-06)
                M_W1 = choose(grid.ends(64)[n], M_W1_next, M_W1)
                M_W2 = choose(grid.ends(64)[n], M_W2_next, M_W2)
                M_W3 = choose(grid.ends(64)[n], M_W3_next, M_W3)
                M_m_W1 = choose(grid.ends(64)[n], M_m_W1_next, M_m_W1)
                M_m_W2 = choose(grid.ends(64)[n], M_m_W2_next, M_m_W2)
                M_m_W3 = choose(grid.ends(64)[n], M_m_W3_next, M_m_W3)
                M_W1_gathered_1 = choose(grid.ends(64)[n], torch.zeros_like(M_W1_gathered_1), M_W1_gathered_1)
                M_W2_gathered_1 = choose(grid.ends(64)[n], torch.zeros_like(M_W2_gathered_1), M_W2_gathered_1)
                M_W3_gathered_1 = choose(grid.ends(64)[n], torch.zeros_like(M_W3_gathered_1), M_W3_gathered_1)
            M_W1_seen = choose(grid.ends(64)[n], M_W1, M_W1_seen)
            M_W2_seen = choose(grid.ends(64)[n], M_W2, M_W2_seen)
            M_W3_seen = choose(grid.ends(64)[n], M_W3, M_W3_seen)
        out_M = grid.join(out_M_all, "headed")
        new["M"] = {
            "running": {"W1": M_W1, "W2": M_W2, "W3": M_W3},
            "committed": {"W1": M_W1_seen, "W2": M_W2_seen, "W3": M_W3_seen},
            "slots": {"m.W1": M_m_W1, "m.W2": M_m_W2, "m.W3": M_m_W3},
            "gathered": {"0": {"W1": M_W1_gathered_1, "W2": M_W2_gathered_1, "W3": M_W3_gathered_1}},
            "count": grid.count,
        }
        out_rope, new["out.rope"] = rope(split(q, n=2), base=10000.0, state=state["out.rope"], mask=mask)
        out_A, new["A"] = attention(
            out_rope, A_write_rope, A_write_split_1, state["A"], mask=mask, scale=0.25, window=64
        )
        out = linear(
            merge(
                out_A
                + times_silu(
                    norm(out_M, self.out.norm.weight, eps=1e-06),
                    split(linear(x, self.out.linear.weight), n=2),
                ),
            ),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `lact`, its parameters drawn from `seed`."""
    return Layer(Lact().initialise(seed), "lact")
