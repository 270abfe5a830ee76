"""`self_modifying_titans_l2`, compiled by nldsl from specs/blocks/self_modifying_titans_l2.nl.  Edit the
specification, not this file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.memory import delta_write, retention_kernel
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, readout, silu_pullback, split
from nldsl.runtime.stacks import side_by_side
from torch import Tensor
from torch.nn import functional


def residual_mlp(z: Tensor, W2: Tensor, W1: Tensor) -> Tensor:
    """The map `residual_mlp`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_silu = functional.silu(out_matmul)
    out_matmul_1 = out_silu @ W1.mT
    out = z + out_matmul_1
    return out


def residual_mlp_l2_gradient(
    key: Tensor, target: Tensor, W2: Tensor, W1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `l2` at the map `residual_mlp`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    matmul = key @ W2.mT
    silu = functional.silu(matmul)
    sub = key + silu @ W1.mT - target
    return key, silu_pullback(sub @ W1, matmul), silu, sub


class SelfModifyingTitansL2(Module):
    """`self_modifying_titans_l2(x)` with chunk = 16, expand = 1, heads = 2, memory_chunk = 64, window = 4.

    Mk, Mv, Me, Ma: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel).

    M: chunk (reads and gradients see the last commit: chunks of 64 tokens are parallel).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("u.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("u.conv.bias", (32,), "rest", constant(0.0))
        self.declare("z.norm.weight", (16,), "norm", constant(1.0))
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("eta.readout.weight", (2, 16), "rest", normal(0.1))
        self.declare("eta.readout.bias", (2,), "rest", constant(0.0))
        self.declare("alpha.readout.weight", (2, 16), "rest", normal(0.1))
        self.declare("alpha.readout.bias", (2,), "rest", constant(4.0))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Mk.W2", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Mk.W1", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Mv.W2", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Mv.W1", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Me.W2", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Me.W1", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Ma.W2", (2, 16, 16), "matrix", normal(0.25))
        self.declare("Ma.W1", (2, 16, 16), "matrix", normal(0.25))
        self.declare("M.W2", (2, 16, 16), "matrix", normal(0.25))
        self.declare("M.W1", (2, 16, 16), "matrix", normal(0.25))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "u.conv": {"tail": self.zeros(batch, 3, 32)},
            "Mk": {
                "running": {"W2": self.start(self.Mk.W2, batch), "W1": self.start(self.Mk.W1, batch)},
                "committed": {"W2": self.start(self.Mk.W2, batch), "W1": self.start(self.Mk.W1, batch)},
                "count": self.counter(batch),
            },
            "Mv": {
                "running": {"W2": self.start(self.Mv.W2, batch), "W1": self.start(self.Mv.W1, batch)},
                "committed": {"W2": self.start(self.Mv.W2, batch), "W1": self.start(self.Mv.W1, batch)},
                "count": self.counter(batch),
            },
            "Me": {
                "running": {"W2": self.start(self.Me.W2, batch), "W1": self.start(self.Me.W1, batch)},
                "committed": {"W2": self.start(self.Me.W2, batch), "W1": self.start(self.Me.W1, batch)},
                "count": self.counter(batch),
            },
            "Ma": {
                "running": {"W2": self.start(self.Ma.W2, batch), "W1": self.start(self.Ma.W1, batch)},
                "committed": {"W2": self.start(self.Ma.W2, batch), "W1": self.start(self.Ma.W1, batch)},
                "count": self.counter(batch),
            },
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "committed": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "count": self.counter(batch),
            },
        }

    def _step_memories(
        self,
        z: Tensor,
        memories_W2_seen: Tensor,
        memories_W1_seen: Tensor,
        memories_W2: Tensor,
        memories_W1: Tensor,
        memories_W2_init: Tensor,
        memories_W1_init: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        memories_read = residual_mlp(z.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        k_Mk, v_Mv, eta_Me, alpha_Ma = memories_read.unbind(-3)
        k = l2norm(k_Mk, eps=1e-06)
        v = l2norm(v_Mv, eps=1e-06)
        eta_readout = readout(eta_Me, self.eta.readout.weight[:, None], self.eta.readout.bias[:, None])
        eta_sigmoid = torch.sigmoid(eta_readout)
        eta = eta_sigmoid / 64
        alpha_readout = readout(
            alpha_Ma, self.alpha.readout.weight[:, None], self.alpha.readout.bias[:, None]
        )
        alpha = torch.sigmoid(alpha_readout)
        alpha__log = functional.logsigmoid(alpha_readout)
        memories_read_1 = residual_mlp(v.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        Mk_write_l2norm_stack = l2norm(memories_read_1, eps=1e-06)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_l2_gradient(
            k.unsqueeze(-3), Mk_write_l2norm_stack, memories_W2_seen, memories_W1_seen
        )
        gate = retention_kernel(log_retain=alpha__log.unsqueeze(-2), valid=valid)
        erase_W2 = (eta[..., None].unsqueeze(-3) / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True))).squeeze(-1)
        memories_W2_next = delta_write(
            memories_W2,
            x_W2,
            dy_W2,
            erase=erase_W2,
            rate=erase_W2,
            gate=gate,
            toward=memories_W2_init,
            valid=valid,
        )
        erase_W1 = (eta[..., None].unsqueeze(-3) / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True))).squeeze(-1)
        memories_W1_next = delta_write(
            memories_W1,
            x_W1,
            dy_W1,
            erase=erase_W1,
            rate=erase_W1,
            gate=gate,
            toward=memories_W1_init,
            valid=valid,
        )
        return k, v, eta, alpha, alpha__log, memories_W2_next, memories_W1_next

    def _step_M(
        self,
        q: Tensor,
        v: Tensor,
        k: Tensor,
        eta: Tensor,
        alpha: Tensor,
        alpha__log: Tensor,
        M_W2_seen: Tensor,
        M_W1_seen: Tensor,
        M_W2: Tensor,
        M_W1: Tensor,
        M_W2_init: Tensor,
        M_W1_init: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 64 tokens: what they read, and the running weights after their writes."""
        y = residual_mlp(q, M_W2_seen, M_W1_seen)
        M_write_M = residual_mlp(v, M_W2_seen, M_W1_seen)
        M_write_l2norm = l2norm(M_write_M, eps=1e-06)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_l2_gradient(k, M_write_l2norm, M_W2_seen, M_W1_seen)
        gate = retention_kernel(log_retain=alpha__log, valid=valid)
        erase_W2 = (eta[..., None] / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True))).squeeze(-1)
        M_W2_next = delta_write(
            M_W2, x_W2, dy_W2, erase=erase_W2, rate=erase_W2, gate=gate, toward=M_W2_init, valid=valid
        )
        erase_W1 = (eta[..., None] / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True))).squeeze(-1)
        M_W1_next = delta_write(
            M_W1, x_W1, dy_W1, erase=erase_W1, rate=erase_W1, gate=gate, toward=M_W1_init, valid=valid
        )
        return y, M_W2_next, M_W1_next

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        u_conv, new["u.conv"] = conv(
            x, self.u.conv.weight, self.u.conv.bias, state=state["u.conv"], mask=mask
        )
        u = functional.silu(u_conv) + x
        z = norm(split(u, n=2), self.z.norm.weight, eps=1e-06)
        q = l2norm(split(linear(u, self.q.linear.weight), n=2), eps=1e-06)
        grid = ChunkGrid(state["Mk"]["count"], mask, x.shape[1], 16)
        z_cut = grid.cut(z, "headed")
        memories_W2 = side_by_side(
            (
                state["Mk"]["running"]["W2"],
                state["Mv"]["running"]["W2"],
                state["Me"]["running"]["W2"],
                state["Ma"]["running"]["W2"],
            ),
            dim=2,
        )
        memories_W1 = side_by_side(
            (
                state["Mk"]["running"]["W1"],
                state["Mv"]["running"]["W1"],
                state["Me"]["running"]["W1"],
                state["Ma"]["running"]["W1"],
            ),
            dim=2,
        )
        memories_W2_seen = side_by_side(
            (
                state["Mk"]["committed"]["W2"],
                state["Mv"]["committed"]["W2"],
                state["Me"]["committed"]["W2"],
                state["Ma"]["committed"]["W2"],
            ),
            dim=2,
        )
        memories_W1_seen = side_by_side(
            (
                state["Mk"]["committed"]["W1"],
                state["Mv"]["committed"]["W1"],
                state["Me"]["committed"]["W1"],
                state["Ma"]["committed"]["W1"],
            ),
            dim=2,
        )
        memories_W2_init = side_by_side((self.Mk.W2, self.Mv.W2, self.Me.W2, self.Ma.W2), dim=1)
        memories_W1_init = side_by_side((self.Mk.W1, self.Mv.W1, self.Me.W1, self.Ma.W1), dim=1)
        k_all = []
        v_all = []
        eta_all = []
        alpha_all = []
        alpha__log_all = []
        for n in range(len(grid)):
            k_n, v_n, eta_n, alpha_n, alpha__log_n, memories_W2_new, memories_W1_new = self._step_memories(
                z_cut[n],
                memories_W2_seen,
                memories_W1_seen,
                memories_W2,
                memories_W1,
                memories_W2_init,
                memories_W1_init,
                grid.valid[n],
            )
            k_all.append(k_n)
            v_all.append(v_n)
            eta_all.append(eta_n)
            alpha_all.append(alpha_n)
            alpha__log_all.append(alpha__log_n)
            memories_W2 = memories_W2_new
            memories_W1 = memories_W1_new
            memories_W2_seen = choose(grid.ends(16)[n], memories_W2, memories_W2_seen)
            memories_W1_seen = choose(grid.ends(16)[n], memories_W1, memories_W1_seen)
        k = grid.join(k_all, "headed")
        v = grid.join(v_all, "headed")
        eta = grid.join(eta_all, "heads")
        alpha = grid.join(alpha_all, "heads")
        alpha__log = grid.join(alpha__log_all, "heads")
        new["Mk"] = {
            "running": {"W2": memories_W2.select(2, 0), "W1": memories_W1.select(2, 0)},
            "committed": {"W2": memories_W2_seen.select(2, 0), "W1": memories_W1_seen.select(2, 0)},
            "count": grid.count,
        }
        new["Mv"] = {
            "running": {"W2": memories_W2.select(2, 1), "W1": memories_W1.select(2, 1)},
            "committed": {"W2": memories_W2_seen.select(2, 1), "W1": memories_W1_seen.select(2, 1)},
            "count": grid.count,
        }
        new["Me"] = {
            "running": {"W2": memories_W2.select(2, 2), "W1": memories_W1.select(2, 2)},
            "committed": {"W2": memories_W2_seen.select(2, 2), "W1": memories_W1_seen.select(2, 2)},
            "count": grid.count,
        }
        new["Ma"] = {
            "running": {"W2": memories_W2.select(2, 3), "W1": memories_W1.select(2, 3)},
            "committed": {"W2": memories_W2_seen.select(2, 3), "W1": memories_W1_seen.select(2, 3)},
            "count": grid.count,
        }
        grid_2 = ChunkGrid(state["M"]["count"], mask, x.shape[1], 64)
        q_cut = grid_2.cut(q, "headed")
        v_cut = grid_2.cut(v, "headed")
        k_cut = grid_2.cut(k, "headed")
        eta_cut = grid_2.cut(eta, "heads")
        alpha_cut = grid_2.cut(alpha, "heads")
        alpha__log_cut = grid_2.cut(alpha__log, "heads")
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_seen = state["M"]["committed"]["W2"]
        M_W1_seen = state["M"]["committed"]["W1"]
        M_W2_init = self.M.W2
        M_W1_init = self.M.W1
        y_all = []
        for n_2 in range(len(grid_2)):
            y_n, M_W2_new, M_W1_new = self._step_M(
                q_cut[n_2],
                v_cut[n_2],
                k_cut[n_2],
                eta_cut[n_2],
                alpha_cut[n_2],
                alpha__log_cut[n_2],
                M_W2_seen,
                M_W1_seen,
                M_W2,
                M_W1,
                M_W2_init,
                M_W1_init,
                grid_2.valid[n_2],
            )
            y_all.append(y_n)
            M_W2 = M_W2_new
            M_W1 = M_W1_new
            M_W2_seen = choose(grid_2.ends(64)[n_2], M_W2, M_W2_seen)
            M_W1_seen = choose(grid_2.ends(64)[n_2], M_W1, M_W1_seen)
        y = grid_2.join(y_all, "headed")
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "committed": {"W2": M_W2_seen, "W1": M_W1_seen},
            "count": grid_2.count,
        }
        out = linear(merge(norm(y, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


def build(seed: int = 0) -> Layer:
    """The compiled `self_modifying_titans_l2`, its parameters drawn from `seed`."""
    return Layer(SelfModifyingTitansL2().initialise(seed), "self_modifying_titans_l2")
