"""`hope_with_momentum`, compiled by nldsl from specs/ablations/hope_with_momentum.nl.  Edit the
specification, not this file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.course import Course, Impulse, Momentum, gate_kernel, momentum_filter
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.kept_layers import silu_perceptron
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, embed, head, l2norm, linear, merge, norm, readout, silu_pullback, split
from nldsl.runtime.stacks import side_by_side
from nldsl.runtime.task import TaskMemory, adapted
from torch import Tensor
from torch.nn import functional


def residual_mlp(z: Tensor, W2: Tensor, W1: Tensor) -> Tensor:
    """The map `residual_mlp`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_silu = functional.silu(out_matmul)
    out_matmul_1 = out_silu @ W1.mT
    out = z + out_matmul_1
    return out


def residual_mlp_dot_gradient(
    key: Tensor, target: Tensor, W2: Tensor, W1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `dot` at the map `residual_mlp`, row by row.

    Returns x_W2, dy_W2, x_W1, dy_W1: `x_W` is the input of the weight `W`, `dy_W` the gradient at its
    output, and the gradient of `W` itself is `g_W`, or `dy_W.mT @ x_W`.
    """
    neg = -target
    matmul = key @ W2.mT
    return key, silu_pullback(neg @ W1, matmul), functional.silu(matmul), neg


def gd(W: Tensor, g: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = 0.001 * g
    W_1 = W - W_mul
    return W_1


class SelfModifyingTitansWithMomentum(Module):
    """`self_modifying_titans_with_momentum(x)` with beta = 0.5, chunk = 16, expand = 1, heads = 4,
    memory_chunk = 64, window = 4.

    Mk, Mv, Me, Ma: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel;
    its backward pass is always recorded: the write of `Mk` is more than one term of plain gradients
    with a gate).

    M: chunk (reads and gradients see the last commit: chunks of 64 tokens are parallel; its backward
    pass is always recorded: the write of `M` is more than one term of plain gradients with a gate).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("u.conv.weight", (256, 4), "rest", normal(0.5))
        self.declare("u.conv.bias", (256,), "rest", constant(0.0))
        self.declare("z.norm.weight", (64,), "norm", constant(1.0))
        self.declare("q.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("alpha.readout.weight", (4, 64), "rest", normal(0.1))
        self.declare("alpha.readout.bias", (4,), "rest", constant(4.0))
        self.declare("eta.readout.weight", (4, 64), "rest", normal(0.1))
        self.declare("eta.readout.bias", (4,), "rest", constant(0.0))
        self.declare("out.norm.weight", (64,), "norm", constant(1.0))
        self.declare("out.linear.weight", (256, 256), "matrix", normal(0.0625))
        self.declare("Mk.W2", (4, 64, 64), "matrix", normal(0.125))
        self.declare("Mk.W1", (4, 64, 64), "matrix", normal(0.125))
        self.declare("Mv.W2", (4, 64, 64), "matrix", normal(0.125))
        self.declare("Mv.W1", (4, 64, 64), "matrix", normal(0.125))
        self.declare("Me.W2", (4, 64, 64), "matrix", normal(0.125))
        self.declare("Me.W1", (4, 64, 64), "matrix", normal(0.125))
        self.declare("Ma.W2", (4, 64, 64), "matrix", normal(0.125))
        self.declare("Ma.W1", (4, 64, 64), "matrix", normal(0.125))
        self.declare("M.W2", (4, 64, 64), "matrix", normal(0.125))
        self.declare("M.W1", (4, 64, 64), "matrix", normal(0.125))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "u.conv": {"tail": self.zeros(batch, 3, 256)},
            "Mk": {
                "running": {"W2": self.start(self.Mk.W2, batch), "W1": self.start(self.Mk.W1, batch)},
                "committed": {"W2": self.start(self.Mk.W2, batch), "W1": self.start(self.Mk.W1, batch)},
                "slots": {"m.W2": self.zeros(batch, 4, 64, 64), "m.W1": self.zeros(batch, 4, 64, 64)},
                "count": self.counter(batch),
            },
            "Mv": {
                "running": {"W2": self.start(self.Mv.W2, batch), "W1": self.start(self.Mv.W1, batch)},
                "committed": {"W2": self.start(self.Mv.W2, batch), "W1": self.start(self.Mv.W1, batch)},
                "slots": {"m.W2": self.zeros(batch, 4, 64, 64), "m.W1": self.zeros(batch, 4, 64, 64)},
                "count": self.counter(batch),
            },
            "Me": {
                "running": {"W2": self.start(self.Me.W2, batch), "W1": self.start(self.Me.W1, batch)},
                "committed": {"W2": self.start(self.Me.W2, batch), "W1": self.start(self.Me.W1, batch)},
                "slots": {"m.W2": self.zeros(batch, 4, 64, 64), "m.W1": self.zeros(batch, 4, 64, 64)},
                "count": self.counter(batch),
            },
            "Ma": {
                "running": {"W2": self.start(self.Ma.W2, batch), "W1": self.start(self.Ma.W1, batch)},
                "committed": {"W2": self.start(self.Ma.W2, batch), "W1": self.start(self.Ma.W1, batch)},
                "slots": {"m.W2": self.zeros(batch, 4, 64, 64), "m.W1": self.zeros(batch, 4, 64, 64)},
                "count": self.counter(batch),
            },
            "M": {
                "running": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "committed": {"W2": self.start(self.M.W2, batch), "W1": self.start(self.M.W1, batch)},
                "slots": {"m.W2": self.zeros(batch, 4, 64, 64), "m.W1": self.zeros(batch, 4, 64, 64)},
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
        memories_m_W2: Tensor,
        memories_m_W1: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        memories_read = residual_mlp(z.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        k_Mk, v_Mv, eta_Me, alpha_Ma = memories_read.unbind(-3)
        k = l2norm(k_Mk, eps=1e-06)
        v = l2norm(v_Mv, eps=1e-06)
        alpha_readout = readout(
            alpha_Ma, self.alpha.readout.weight[:, None], self.alpha.readout.bias[:, None]
        )
        alpha = torch.sigmoid(alpha_readout)
        alpha__log = functional.logsigmoid(alpha_readout)
        eta_add = 1 + alpha
        eta_readout = readout(eta_Me, self.eta.readout.weight[:, None], self.eta.readout.bias[:, None])
        eta_sigmoid = torch.sigmoid(eta_readout)
        eta = eta_add * eta_sigmoid
        memories_read_1 = residual_mlp(v.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        Mk_write_l2norm_stack = l2norm(memories_read_1, eps=1e-06)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_dot_gradient(
            k.unsqueeze(-3), Mk_write_l2norm_stack, memories_W2_seen, memories_W1_seen
        )
        gate = gate_kernel(log_retain=alpha__log.unsqueeze(-2), valid=valid)
        beta_W2 = x_W2.new_full(x_W2.shape[:-1], 0.5)
        slot_rate_W2 = (
            0.5 * (eta[..., None].unsqueeze(-3) / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True)))
        ).squeeze(-1)
        read_W2 = x_W2.new_full(x_W2.shape[:-1], 1.0)
        slot_erase_W2 = (
            0.5 * (eta[..., None].unsqueeze(-3) / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True)))
        ).squeeze(-1)
        momentum_filter_ = momentum_filter(beta_W2, slot_rate_W2, read_W2, slot_erase_W2, valid=valid)
        memories_W2_course = Course(
            memories_W2,
            (Impulse(x_W2, dy_W2, momentum=Momentum(memories_m_W2, momentum_filter_)),),
            gate=gate,
            toward=memories_W2_init,
            valid=valid,
        )
        beta_W1 = x_W1.new_full(x_W1.shape[:-1], 0.5)
        slot_rate_W1 = (
            0.5 * (eta[..., None].unsqueeze(-3) / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True)))
        ).squeeze(-1)
        read_W1 = x_W1.new_full(x_W1.shape[:-1], 1.0)
        slot_erase_W1 = (
            0.5 * (eta[..., None].unsqueeze(-3) / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True)))
        ).squeeze(-1)
        momentum_filter_2 = momentum_filter(beta_W1, slot_rate_W1, read_W1, slot_erase_W1, valid=valid)
        memories_W1_course = Course(
            memories_W1,
            (Impulse(x_W1, dy_W1, momentum=Momentum(memories_m_W1, momentum_filter_2)),),
            gate=gate,
            toward=memories_W1_init,
            valid=valid,
        )
        memories_W2_next, memories_m_W2_next = memories_W2_course.close()
        memories_W1_next, memories_m_W1_next = memories_W1_course.close()
        return (
            k,
            v,
            alpha,
            alpha__log,
            eta,
            memories_W2_next,
            memories_W1_next,
            memories_m_W2_next,
            memories_m_W1_next,
        )

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
        M_m_W2: Tensor,
        M_m_W1: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 64 tokens: what they read, and the running weights after their writes."""
        y = residual_mlp(q, M_W2_seen, M_W1_seen)
        M_write_M = residual_mlp(v, M_W2_seen, M_W1_seen)
        M_write_l2norm = l2norm(M_write_M, eps=1e-06)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_dot_gradient(k, M_write_l2norm, M_W2_seen, M_W1_seen)
        gate = gate_kernel(log_retain=alpha__log, valid=valid)
        beta_W2 = x_W2.new_full(x_W2.shape[:-1], 0.5)
        slot_rate_W2 = (0.5 * (eta[..., None] / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True)))).squeeze(-1)
        read_W2 = x_W2.new_full(x_W2.shape[:-1], 1.0)
        slot_erase_W2 = (0.5 * (eta[..., None] / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True)))).squeeze(-1)
        momentum_filter_ = momentum_filter(beta_W2, slot_rate_W2, read_W2, slot_erase_W2, valid=valid)
        M_W2_course = Course(
            M_W2,
            (Impulse(x_W2, dy_W2, momentum=Momentum(M_m_W2, momentum_filter_)),),
            gate=gate,
            toward=M_W2_init,
            valid=valid,
        )
        beta_W1 = x_W1.new_full(x_W1.shape[:-1], 0.5)
        slot_rate_W1 = (0.5 * (eta[..., None] / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True)))).squeeze(-1)
        read_W1 = x_W1.new_full(x_W1.shape[:-1], 1.0)
        slot_erase_W1 = (0.5 * (eta[..., None] / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True)))).squeeze(-1)
        momentum_filter_2 = momentum_filter(beta_W1, slot_rate_W1, read_W1, slot_erase_W1, valid=valid)
        M_W1_course = Course(
            M_W1,
            (Impulse(x_W1, dy_W1, momentum=Momentum(M_m_W1, momentum_filter_2)),),
            gate=gate,
            toward=M_W1_init,
            valid=valid,
        )
        M_W2_next, M_m_W2_next = M_W2_course.close()
        M_W1_next, M_m_W1_next = M_W1_course.close()
        return y, M_W2_next, M_W1_next, M_m_W2_next, M_m_W1_next

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        u_conv_silu, new["u.conv"] = conv(
            x, self.u.conv.weight, self.u.conv.bias, state=state["u.conv"], mask=mask, activation="silu"
        )
        u = u_conv_silu + x
        z = norm(split(u, n=4), self.z.norm.weight, eps=1e-06)
        q = l2norm(split(linear(u, self.q.linear.weight), n=4), eps=1e-06)
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
        memories_m_W2 = side_by_side(
            (
                state["Mk"]["slots"]["m.W2"],
                state["Mv"]["slots"]["m.W2"],
                state["Me"]["slots"]["m.W2"],
                state["Ma"]["slots"]["m.W2"],
            ),
            dim=2,
        )
        memories_m_W1 = side_by_side(
            (
                state["Mk"]["slots"]["m.W1"],
                state["Mv"]["slots"]["m.W1"],
                state["Me"]["slots"]["m.W1"],
                state["Ma"]["slots"]["m.W1"],
            ),
            dim=2,
        )
        memories_W2_init = side_by_side((self.Mk.W2, self.Mv.W2, self.Me.W2, self.Ma.W2), dim=1)
        memories_W1_init = side_by_side((self.Mk.W1, self.Mv.W1, self.Me.W1, self.Ma.W1), dim=1)
        k_all = []
        v_all = []
        alpha_all = []
        alpha__log_all = []
        eta_all = []
        for n in range(len(grid)):
            (
                k_n,
                v_n,
                alpha_n,
                alpha__log_n,
                eta_n,
                memories_W2_new,
                memories_W1_new,
                memories_m_W2_new,
                memories_m_W1_new,
            ) = self._step_memories(
                z_cut[n],
                memories_W2_seen,
                memories_W1_seen,
                memories_W2,
                memories_W1,
                memories_W2_init,
                memories_W1_init,
                memories_m_W2,
                memories_m_W1,
                grid.valid[n],
            )
            k_all.append(k_n)
            v_all.append(v_n)
            alpha_all.append(alpha_n)
            alpha__log_all.append(alpha__log_n)
            eta_all.append(eta_n)
            memories_W2 = memories_W2_new
            memories_W1 = memories_W1_new
            memories_m_W2 = memories_m_W2_new
            memories_m_W1 = memories_m_W1_new
            memories_W2_seen = choose(grid.ends(16)[n], memories_W2, memories_W2_seen)
            memories_W1_seen = choose(grid.ends(16)[n], memories_W1, memories_W1_seen)
        k = grid.join(k_all, "headed")
        v = grid.join(v_all, "headed")
        alpha = grid.join(alpha_all, "heads")
        alpha__log = grid.join(alpha__log_all, "heads")
        eta = grid.join(eta_all, "heads")
        new["Mk"] = {
            "running": {"W2": memories_W2.select(2, 0), "W1": memories_W1.select(2, 0)},
            "committed": {"W2": memories_W2_seen.select(2, 0), "W1": memories_W1_seen.select(2, 0)},
            "slots": {"m.W2": memories_m_W2.select(2, 0), "m.W1": memories_m_W1.select(2, 0)},
            "count": grid.count,
        }
        new["Mv"] = {
            "running": {"W2": memories_W2.select(2, 1), "W1": memories_W1.select(2, 1)},
            "committed": {"W2": memories_W2_seen.select(2, 1), "W1": memories_W1_seen.select(2, 1)},
            "slots": {"m.W2": memories_m_W2.select(2, 1), "m.W1": memories_m_W1.select(2, 1)},
            "count": grid.count,
        }
        new["Me"] = {
            "running": {"W2": memories_W2.select(2, 2), "W1": memories_W1.select(2, 2)},
            "committed": {"W2": memories_W2_seen.select(2, 2), "W1": memories_W1_seen.select(2, 2)},
            "slots": {"m.W2": memories_m_W2.select(2, 2), "m.W1": memories_m_W1.select(2, 2)},
            "count": grid.count,
        }
        new["Ma"] = {
            "running": {"W2": memories_W2.select(2, 3), "W1": memories_W1.select(2, 3)},
            "committed": {"W2": memories_W2_seen.select(2, 3), "W1": memories_W1_seen.select(2, 3)},
            "slots": {"m.W2": memories_m_W2.select(2, 3), "m.W1": memories_m_W1.select(2, 3)},
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
        M_m_W2 = state["M"]["slots"]["m.W2"]
        M_m_W1 = state["M"]["slots"]["m.W1"]
        M_W2_init = self.M.W2
        M_W1_init = self.M.W1
        y_all = []
        for n_2 in range(len(grid_2)):
            y_n, M_W2_new, M_W1_new, M_m_W2_new, M_m_W1_new = self._step_M(
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
                M_m_W2,
                M_m_W1,
                grid_2.valid[n_2],
            )
            y_all.append(y_n)
            M_W2 = M_W2_new
            M_W1 = M_W1_new
            M_m_W2 = M_m_W2_new
            M_m_W1 = M_m_W1_new
            M_W2_seen = choose(grid_2.ends(64)[n_2], M_W2, M_W2_seen)
            M_W1_seen = choose(grid_2.ends(64)[n_2], M_W1, M_W1_seen)
        y = grid_2.join(y_all, "headed")
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "committed": {"W2": M_W2_seen, "W1": M_W1_seen},
            "slots": {"m.W2": M_m_W2, "m.W1": M_m_W1},
            "count": grid_2.count,
        }
        out = linear(merge(norm(y, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


class Cms(Module):
    """`cms(x)` with chunks = (16, 64, 256), expand = 4, rate = 0.001.

    F[0]: task (learns from the task between segments; within one it is a plain map).

    F[1]: task (learns from the task between segments; within one it is a plain map).

    F[2]: task (learns from the task between segments; within one it is a plain map).
    """

    tasks = (
        TaskMemory(
            path="F[0]",
            every=16,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="f[0]",
            descent=0.001,
        ),
        TaskMemory(
            path="F[1]",
            every=64,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="f[1]",
            descent=0.001,
        ),
        TaskMemory(
            path="F[2]",
            every=256,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="f[2]",
            descent=0.001,
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.declare("x[0].norm.weight", (256,), "norm", constant(1.0))
        self.declare("x[1].norm.weight", (256,), "norm", constant(1.0))
        self.declare("x[2].norm.weight", (256,), "norm", constant(1.0))
        self.declare("F[0].W2", (1024, 256), "matrix", normal(0.0625))
        self.declare("F[0].W1", (256, 1024), "matrix", normal(0.03125))
        self.declare("F[1].W2", (1024, 256), "matrix", normal(0.0625))
        self.declare("F[1].W1", (256, 1024), "matrix", normal(0.03125))
        self.declare("F[2].W2", (1024, 256), "matrix", normal(0.0625))
        self.declare("F[2].W1", (256, 1024), "matrix", normal(0.03125))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "F[0]": {"delta": None, "count": self.counter(batch)},
            "F[1]": {"delta": None, "count": self.counter(batch)},
            "F[2]": {"delta": None, "count": self.counter(batch)},
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_1 = silu_perceptron(
            x,
            adapted(self.F[0].W2, state["F[0]"], "W2"),
            adapted(self.F[0].W1, state["F[0]"], "W1"),
            scale=self.x[0].norm.weight,
            eps=1e-06,
            residual=True,
        )
        x_2 = silu_perceptron(
            x_1,
            adapted(self.F[1].W2, state["F[1]"], "W2"),
            adapted(self.F[1].W1, state["F[1]"], "W1"),
            scale=self.x[1].norm.weight,
            eps=1e-06,
            residual=True,
        )
        x_3 = silu_perceptron(
            x_2,
            adapted(self.F[2].W2, state["F[2]"], "W2"),
            adapted(self.F[2].W1, state["F[2]"], "W1"),
            scale=self.x[2].norm.weight,
            eps=1e-06,
            residual=True,
        )
        new["F[0]"] = state["F[0]"]
        new["F[1]"] = state["F[1]"]
        new["F[2]"] = state["F[2]"]
        return x_3, new


class HopeBlocks(Module):
    """`hope_blocks(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.norm.weight", (256,), "norm", constant(1.0))
        self.attach("self_modifying_titans_with_momentum", SelfModifyingTitansWithMomentum())
        self.attach("cms", Cms())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "self_modifying_titans_with_momentum": self.self_modifying_titans_with_momentum.initial_state(
                batch
            ),
            "cms": self.cms.initial_state(batch),
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        (
            x_self_modifying_titans_with_momentum,
            new["self_modifying_titans_with_momentum"],
        ) = self.self_modifying_titans_with_momentum(
            norm(x, self.x.norm.weight, eps=1e-06), state["self_modifying_titans_with_momentum"], mask
        )
        x_1 = x + x_self_modifying_titans_with_momentum
        x_2, new["cms"] = self.cms(x_1, state["cms"], mask)
        return x_2, new


class Hope(Module):
    """`hope(tokens)` with chunks = (16, 64, 256), depth = 4, dim = 256, heads = 4, mixer =
    self_modifying_titans_with_momentum, system = cms, vocab = 256.
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.embed.weight", (256, 256), "embedding", normal(1.0))
        self.declare("out.norm.weight", (256,), "norm", constant(1.0))
        self.declare("out.head.weight", (256, 256), "head", normal(0.0625))
        self.attach_repeated("blocks", [HopeBlocks() for _ in range(4)])

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {"blocks": [layer.initial_state(batch) for layer in self.blocks]}

    def forward(
        self, tokens: Tensor, state: dict[str, Any], mask: Tensor | None
    ) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x = embed(tokens, self.x.embed.weight)
        x_1 = x
        layers = []
        for layer, before in zip(self.blocks, state["blocks"], strict=True):
            x_1, after = layer(x_1, before, mask)
            layers.append(after)
        new["blocks"] = layers
        out = head(norm(x_1, self.out.norm.weight, eps=1e-06), self.out.head.weight)
        return out, new


def build(seed: int = 0) -> Model:
    """The compiled `hope_with_momentum`, its parameters drawn from `seed`."""
    return Model(Hope().initialise(seed), "hope_with_momentum", carry="exact")
