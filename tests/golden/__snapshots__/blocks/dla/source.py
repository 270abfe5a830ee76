"""`dla`, compiled by nldsl from specs/blocks/dla.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.course import Course, Impulse, gate_kernel
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, silu_pullback, split
from torch import Tensor
from torch.nn import functional


def mlp_dot_gradient(
    key: Tensor, target: Tensor, W2: Tensor, W1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `dot` at the map `mlp`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    neg = -target
    matmul = key @ W2.mT
    return key, silu_pullback(neg @ W1, matmul), functional.silu(matmul), neg


def mlp_live(z: Tensor, W2: Any, W1: Any) -> Tensor:
    """The map `mlp`, row by row, at the weights of every token: `W(z)` for `W @ z`."""
    out_matmul = W2(z)
    out_silu = functional.silu(out_matmul)
    out = W1(out_silu)
    return out


class Dla(Module):
    """`dla(x)` with chunk = 16, expand = 2, heads = 2, window = 4.

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

    def _step_M(
        self,
        k: Tensor,
        M_write_split: Tensor,
        eta: Tensor,
        keep: Tensor,
        q: Tensor,
        M_W2_base: Tensor,
        M_W1_base: Tensor,
        M_W2: Tensor,
        M_W1: Tensor,
        M_W2_init: Tensor,
        M_W1_init: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        x_W2, dy_W2, x_W1, dy_W1 = mlp_dot_gradient(k, M_write_split, M_W2_base, M_W1_base)
        gate = gate_kernel(retain=keep.mT, valid=valid)
        rate_W2 = eta.mT[..., None].squeeze(-1)
        M_W2_course = Course(
            M_W2, (Impulse(x_W2, dy_W2, rate=rate_W2),), gate=gate, toward=M_W2_init, valid=valid
        )
        rate_W1 = eta.mT[..., None].squeeze(-1)
        M_W1_course = Course(
            M_W1, (Impulse(x_W1, dy_W1, rate=rate_W1),), gate=gate, toward=M_W1_init, valid=valid
        )
        out_M = mlp_live(q, M_W2_course.after, M_W1_course.after)
        M_W2_next = M_W2_course.end()
        M_W1_next = M_W1_course.end()
        return out_M, M_W2_next, M_W1_next

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
        eta = torch.sigmoid(linear(x, self.eta.linear.weight)) / 16
        keep = 1 - torch.sigmoid(linear(x, self.keep.linear.weight, self.keep.linear.bias)) / 16
        M_write_split = split(v, n=2)
        grid = ChunkGrid(state["M"]["count"], mask, x.shape[1], 16)
        k_cut = grid.cut(k, "headed")
        M_write_split_cut = grid.cut(M_write_split, "headed")
        eta_cut = grid.cut(eta, "vector")
        keep_cut = grid.cut(keep, "vector")
        q_cut = grid.cut(q, "headed")
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_base = state["M"]["base"]["W2"]
        M_W1_base = state["M"]["base"]["W1"]
        M_W2_init = self.M.W2
        M_W1_init = self.M.W1
        out_M_all = []
        for n in range(len(grid)):
            out_M_n, M_W2_new, M_W1_new = self._step_M(
                k_cut[n],
                M_write_split_cut[n],
                eta_cut[n],
                keep_cut[n],
                q_cut[n],
                M_W2_base,
                M_W1_base,
                M_W2,
                M_W1,
                M_W2_init,
                M_W1_init,
                grid.valid[n],
            )
            out_M_all.append(out_M_n)
            M_W2 = M_W2_new
            M_W1 = M_W1_new
            M_W2_base = choose(grid.ends(16)[n], M_W2, M_W2_base)
            M_W1_base = choose(grid.ends(16)[n], M_W1, M_W1_base)
        out_M = grid.join(out_M_all, "headed")
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "base": {"W2": M_W2_base, "W1": M_W1_base},
            "count": grid.count,
        }
        out = linear(
            merge(norm(out_M, self.out.norm.weight, eps=1e-06))
            * functional.silu(linear(x, self.out.linear.weight)),
            self.out.linear_2.weight,
        )
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `dla`, its parameters drawn from `seed`."""
    return Layer(Dla().initialise(seed), "dla")
