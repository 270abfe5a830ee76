"""`hope_with_momentum`, compiled by nldsl from specs/ablations/hope_with_momentum.nl.  Edit the
specification, not this file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.grid import choose
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, embed, head, l2norm, linear, merge, norm, readout, silu_pullback, split
from nldsl.runtime.task import TaskMemory, adapted
from nldsl.runtime.token import ends_of, hold, join_tokens, live_at, tick
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


def dgd_momentum(W: Tensor, g: Tensor, x: Tensor, lr: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the rule `dgd_momentum` for one token; gates are `[..., 1, 1]`."""
    r_pow = x**2
    r_sum = r_pow.sum(-1, keepdim=True)
    r_add = 0.01 + r_sum
    r = lr / r_add
    m_mul = 0.5 * m
    m_mul_1 = 0.5 * r
    m_matmul = x @ W.mT
    m_outer = m_matmul.mT @ x
    m_add = m_outer + g
    m_mul_2 = m_mul_1 * m_add
    m_1 = m_mul - m_mul_2
    W_1 = W + m_1
    return W_1, m_1


def mlp(z: Tensor, W2: Tensor, W1: Tensor) -> Tensor:
    """The map `mlp`, row by row: `[..., C, z] -> [..., C, y]`."""
    out_matmul = z @ W2.mT
    out_silu = functional.silu(out_matmul)
    out = out_silu @ W1.mT
    return out


def gd(W: Tensor, g: Tensor) -> Tensor:
    """One step of the rule `gd` for one token; gates are `[..., 1, 1]`."""
    W_mul = 0.001 * g
    W_1 = W - W_mul
    return W_1


class SelfModifyingTitansWithMomentum(Module):
    """`self_modifying_titans_with_momentum(x)` with beta = 0.5, chunk = 16, expand = 1, heads = 4,
    memory_chunk = 64, window = 4.

    Mk, Mv, Me, Ma: sequential (one token after the other).

    M: sequential (one token after the other).
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

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        u_conv, new["u.conv"] = conv(
            x, self.u.conv.weight, self.u.conv.bias, state=state["u.conv"], mask=mask
        )
        u = functional.silu(u_conv) + x
        z = norm(split(u, n=4), self.z.norm.weight, eps=1e-06)
        q = l2norm(split(linear(u, self.q.linear.weight), n=4), eps=1e-06)
        z_first = z.transpose(1, 2)
        Mk_W2 = state["Mk"]["running"]["W2"]
        Mk_W1 = state["Mk"]["running"]["W1"]
        Mk_W2_seen = state["Mk"]["committed"]["W2"]
        Mk_W1_seen = state["Mk"]["committed"]["W1"]
        Mk_m_W2 = state["Mk"]["slots"]["m.W2"]
        Mk_m_W1 = state["Mk"]["slots"]["m.W1"]
        Mk_count = state["Mk"]["count"]
        Mk_ends_16 = ends_of(Mk_count, mask, x, 16)
        Mv_W2 = state["Mv"]["running"]["W2"]
        Mv_W1 = state["Mv"]["running"]["W1"]
        Mv_W2_seen = state["Mv"]["committed"]["W2"]
        Mv_W1_seen = state["Mv"]["committed"]["W1"]
        Mv_m_W2 = state["Mv"]["slots"]["m.W2"]
        Mv_m_W1 = state["Mv"]["slots"]["m.W1"]
        Mv_count = state["Mv"]["count"]
        Mv_ends_16 = ends_of(Mv_count, mask, x, 16)
        Me_W2 = state["Me"]["running"]["W2"]
        Me_W1 = state["Me"]["running"]["W1"]
        Me_W2_seen = state["Me"]["committed"]["W2"]
        Me_W1_seen = state["Me"]["committed"]["W1"]
        Me_m_W2 = state["Me"]["slots"]["m.W2"]
        Me_m_W1 = state["Me"]["slots"]["m.W1"]
        Me_count = state["Me"]["count"]
        Me_ends_16 = ends_of(Me_count, mask, x, 16)
        Ma_W2 = state["Ma"]["running"]["W2"]
        Ma_W1 = state["Ma"]["running"]["W1"]
        Ma_W2_seen = state["Ma"]["committed"]["W2"]
        Ma_W1_seen = state["Ma"]["committed"]["W1"]
        Ma_m_W2 = state["Ma"]["slots"]["m.W2"]
        Ma_m_W1 = state["Ma"]["slots"]["m.W1"]
        Ma_count = state["Ma"]["count"]
        Ma_ends_16 = ends_of(Ma_count, mask, x, 16)
        k_all = []
        v_all = []
        alpha_all = []
        alpha__log_all = []
        eta_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            z_t = z_first[:, :, t : t + 1]
            k_Mk = residual_mlp(z_t, Mk_W2_seen, Mk_W1_seen)
            k_2 = l2norm(k_Mk, eps=1e-06)
            v_Mv = residual_mlp(z_t, Mv_W2_seen, Mv_W1_seen)
            v_2 = l2norm(v_Mv, eps=1e-06)
            alpha_Ma = residual_mlp(z_t, Ma_W2_seen, Ma_W1_seen)
            alpha_readout = readout(
                alpha_Ma, self.alpha.readout.weight[:, None], self.alpha.readout.bias[:, None]
            )
            alpha = torch.sigmoid(alpha_readout)
            alpha__log = functional.logsigmoid(alpha_readout)
            eta_add = 1 + alpha
            eta_Me = residual_mlp(z_t, Me_W2_seen, Me_W1_seen)
            eta_readout = readout(eta_Me, self.eta.readout.weight[:, None], self.eta.readout.bias[:, None])
            eta_sigmoid = torch.sigmoid(eta_readout)
            eta = eta_add * eta_sigmoid
            Mk_write_Mk = residual_mlp(v_2, Mk_W2_seen, Mk_W1_seen)
            Mk_write_l2norm = l2norm(Mk_write_Mk, eps=1e-06)
            Mv_write_Mv = residual_mlp(v_2, Mv_W2_seen, Mv_W1_seen)
            Mv_write_l2norm = l2norm(Mv_write_Mv, eps=1e-06)
            Me_write_Me = residual_mlp(v_2, Me_W2_seen, Me_W1_seen)
            Me_write_l2norm = l2norm(Me_write_Me, eps=1e-06)
            Ma_write_Ma = residual_mlp(v_2, Ma_W2_seen, Ma_W1_seen)
            Ma_write_l2norm = l2norm(Ma_write_Ma, eps=1e-06)
            Mk_x_W2, Mk_dy_W2, Mk_x_W1, Mk_dy_W1 = residual_mlp_dot_gradient(
                k_2, Mk_write_l2norm, Mk_W2_seen, Mk_W1_seen
            )
            Mk_W2_offset = Mk_W2 - self.Mk.W2
            Mk_W2_step, Mk_m_W2_next = dgd_momentum(
                Mk_W2_offset, Mk_dy_W2.mT @ Mk_x_W2, Mk_x_W2, eta[..., None], Mk_m_W2
            )
            Mk_W1_offset = Mk_W1 - self.Mk.W1
            Mk_W1_step, Mk_m_W1_next = dgd_momentum(
                Mk_W1_offset, Mk_dy_W1.mT @ Mk_x_W1, Mk_x_W1, eta[..., None], Mk_m_W1
            )
            Mk_W2_next = Mk_W2_step + (alpha[..., None] - 1.0) * Mk_W2_offset + self.Mk.W2
            Mk_W1_next = Mk_W1_step + (alpha[..., None] - 1.0) * Mk_W1_offset + self.Mk.W1
            Mv_x_W2, Mv_dy_W2, Mv_x_W1, Mv_dy_W1 = residual_mlp_dot_gradient(
                k_2, Mv_write_l2norm, Mv_W2_seen, Mv_W1_seen
            )
            Mv_W2_offset = Mv_W2 - self.Mv.W2
            Mv_W2_step, Mv_m_W2_next = dgd_momentum(
                Mv_W2_offset, Mv_dy_W2.mT @ Mv_x_W2, Mv_x_W2, eta[..., None], Mv_m_W2
            )
            Mv_W1_offset = Mv_W1 - self.Mv.W1
            Mv_W1_step, Mv_m_W1_next = dgd_momentum(
                Mv_W1_offset, Mv_dy_W1.mT @ Mv_x_W1, Mv_x_W1, eta[..., None], Mv_m_W1
            )
            Mv_W2_next = Mv_W2_step + (alpha[..., None] - 1.0) * Mv_W2_offset + self.Mv.W2
            Mv_W1_next = Mv_W1_step + (alpha[..., None] - 1.0) * Mv_W1_offset + self.Mv.W1
            Me_x_W2, Me_dy_W2, Me_x_W1, Me_dy_W1 = residual_mlp_dot_gradient(
                k_2, Me_write_l2norm, Me_W2_seen, Me_W1_seen
            )
            Me_W2_offset = Me_W2 - self.Me.W2
            Me_W2_step, Me_m_W2_next = dgd_momentum(
                Me_W2_offset, Me_dy_W2.mT @ Me_x_W2, Me_x_W2, eta[..., None], Me_m_W2
            )
            Me_W1_offset = Me_W1 - self.Me.W1
            Me_W1_step, Me_m_W1_next = dgd_momentum(
                Me_W1_offset, Me_dy_W1.mT @ Me_x_W1, Me_x_W1, eta[..., None], Me_m_W1
            )
            Me_W2_next = Me_W2_step + (alpha[..., None] - 1.0) * Me_W2_offset + self.Me.W2
            Me_W1_next = Me_W1_step + (alpha[..., None] - 1.0) * Me_W1_offset + self.Me.W1
            Ma_x_W2, Ma_dy_W2, Ma_x_W1, Ma_dy_W1 = residual_mlp_dot_gradient(
                k_2, Ma_write_l2norm, Ma_W2_seen, Ma_W1_seen
            )
            Ma_W2_offset = Ma_W2 - self.Ma.W2
            Ma_W2_step, Ma_m_W2_next = dgd_momentum(
                Ma_W2_offset, Ma_dy_W2.mT @ Ma_x_W2, Ma_x_W2, eta[..., None], Ma_m_W2
            )
            Ma_W1_offset = Ma_W1 - self.Ma.W1
            Ma_W1_step, Ma_m_W1_next = dgd_momentum(
                Ma_W1_offset, Ma_dy_W1.mT @ Ma_x_W1, Ma_x_W1, eta[..., None], Ma_m_W1
            )
            Ma_W2_next = Ma_W2_step + (alpha[..., None] - 1.0) * Ma_W2_offset + self.Ma.W2
            Ma_W1_next = Ma_W1_step + (alpha[..., None] - 1.0) * Ma_W1_offset + self.Ma.W1
            Mk_W2 = hold(live, Mk_W2_next, Mk_W2)
            Mk_W1 = hold(live, Mk_W1_next, Mk_W1)
            Mk_m_W2 = hold(live, Mk_m_W2_next, Mk_m_W2)
            Mk_m_W1 = hold(live, Mk_m_W1_next, Mk_m_W1)
            Mk_count = tick(Mk_count, live)
            Mk_W2_seen = choose(Mk_ends_16[t], Mk_W2, Mk_W2_seen)
            Mk_W1_seen = choose(Mk_ends_16[t], Mk_W1, Mk_W1_seen)
            Mv_W2 = hold(live, Mv_W2_next, Mv_W2)
            Mv_W1 = hold(live, Mv_W1_next, Mv_W1)
            Mv_m_W2 = hold(live, Mv_m_W2_next, Mv_m_W2)
            Mv_m_W1 = hold(live, Mv_m_W1_next, Mv_m_W1)
            Mv_count = tick(Mv_count, live)
            Mv_W2_seen = choose(Mv_ends_16[t], Mv_W2, Mv_W2_seen)
            Mv_W1_seen = choose(Mv_ends_16[t], Mv_W1, Mv_W1_seen)
            Me_W2 = hold(live, Me_W2_next, Me_W2)
            Me_W1 = hold(live, Me_W1_next, Me_W1)
            Me_m_W2 = hold(live, Me_m_W2_next, Me_m_W2)
            Me_m_W1 = hold(live, Me_m_W1_next, Me_m_W1)
            Me_count = tick(Me_count, live)
            Me_W2_seen = choose(Me_ends_16[t], Me_W2, Me_W2_seen)
            Me_W1_seen = choose(Me_ends_16[t], Me_W1, Me_W1_seen)
            Ma_W2 = hold(live, Ma_W2_next, Ma_W2)
            Ma_W1 = hold(live, Ma_W1_next, Ma_W1)
            Ma_m_W2 = hold(live, Ma_m_W2_next, Ma_m_W2)
            Ma_m_W1 = hold(live, Ma_m_W1_next, Ma_m_W1)
            Ma_count = tick(Ma_count, live)
            Ma_W2_seen = choose(Ma_ends_16[t], Ma_W2, Ma_W2_seen)
            Ma_W1_seen = choose(Ma_ends_16[t], Ma_W1, Ma_W1_seen)
            k_all.append(k_2)
            v_all.append(v_2)
            alpha_all.append(alpha)
            alpha__log_all.append(alpha__log)
            eta_all.append(eta)
        k = join_tokens(k_all, 2, self.zeros(x.shape[0], 0, 4, 64))
        v = join_tokens(v_all, 2, self.zeros(x.shape[0], 0, 4, 64))
        alpha_2 = join_tokens(alpha_all, 2, self.zeros(x.shape[0], 0, 4))
        eta_2 = join_tokens(eta_all, 2, self.zeros(x.shape[0], 0, 4))
        new["Mk"] = {
            "running": {"W2": Mk_W2, "W1": Mk_W1},
            "committed": {"W2": Mk_W2_seen, "W1": Mk_W1_seen},
            "slots": {"m.W2": Mk_m_W2, "m.W1": Mk_m_W1},
            "count": Mk_count,
        }
        new["Mv"] = {
            "running": {"W2": Mv_W2, "W1": Mv_W1},
            "committed": {"W2": Mv_W2_seen, "W1": Mv_W1_seen},
            "slots": {"m.W2": Mv_m_W2, "m.W1": Mv_m_W1},
            "count": Mv_count,
        }
        new["Me"] = {
            "running": {"W2": Me_W2, "W1": Me_W1},
            "committed": {"W2": Me_W2_seen, "W1": Me_W1_seen},
            "slots": {"m.W2": Me_m_W2, "m.W1": Me_m_W1},
            "count": Me_count,
        }
        new["Ma"] = {
            "running": {"W2": Ma_W2, "W1": Ma_W1},
            "committed": {"W2": Ma_W2_seen, "W1": Ma_W1_seen},
            "slots": {"m.W2": Ma_m_W2, "m.W1": Ma_m_W1},
            "count": Ma_count,
        }
        q_first = q.transpose(1, 2)
        v_first = v.transpose(1, 2)
        k_first = k.transpose(1, 2)
        eta_first = eta_2.mT
        alpha_first = alpha_2.mT
        M_W2 = state["M"]["running"]["W2"]
        M_W1 = state["M"]["running"]["W1"]
        M_W2_seen = state["M"]["committed"]["W2"]
        M_W1_seen = state["M"]["committed"]["W1"]
        M_m_W2 = state["M"]["slots"]["m.W2"]
        M_m_W1 = state["M"]["slots"]["m.W1"]
        M_count = state["M"]["count"]
        M_ends_64 = ends_of(M_count, mask, x, 64)
        y_all = []
        for t in range(x.shape[1]):
            live = live_at(mask, t)
            q_t = q_first[:, :, t : t + 1]
            v_t = v_first[:, :, t : t + 1]
            k_t = k_first[:, :, t : t + 1]
            eta_t = eta_first[:, :, t : t + 1]
            alpha_t = alpha_first[:, :, t : t + 1]
            y = residual_mlp(q_t, M_W2_seen, M_W1_seen)
            M_write_M = residual_mlp(v_t, M_W2_seen, M_W1_seen)
            M_write_l2norm = l2norm(M_write_M, eps=1e-06)
            M_x_W2, M_dy_W2, M_x_W1, M_dy_W1 = residual_mlp_dot_gradient(
                k_t, M_write_l2norm, M_W2_seen, M_W1_seen
            )
            M_W2_offset = M_W2 - self.M.W2
            M_W2_step, M_m_W2_next = dgd_momentum(
                M_W2_offset, M_dy_W2.mT @ M_x_W2, M_x_W2, eta_t[..., None], M_m_W2
            )
            M_W1_offset = M_W1 - self.M.W1
            M_W1_step, M_m_W1_next = dgd_momentum(
                M_W1_offset, M_dy_W1.mT @ M_x_W1, M_x_W1, eta_t[..., None], M_m_W1
            )
            M_W2_next = M_W2_step + (alpha_t[..., None] - 1.0) * M_W2_offset + self.M.W2
            M_W1_next = M_W1_step + (alpha_t[..., None] - 1.0) * M_W1_offset + self.M.W1
            M_W2 = hold(live, M_W2_next, M_W2)
            M_W1 = hold(live, M_W1_next, M_W1)
            M_m_W2 = hold(live, M_m_W2_next, M_m_W2)
            M_m_W1 = hold(live, M_m_W1_next, M_m_W1)
            M_count = tick(M_count, live)
            M_W2_seen = choose(M_ends_64[t], M_W2, M_W2_seen)
            M_W1_seen = choose(M_ends_64[t], M_W1, M_W1_seen)
            y_all.append(y)
        y_2 = join_tokens(y_all, 2, self.zeros(x.shape[0], 0, 4, 64))
        new["M"] = {
            "running": {"W2": M_W2, "W1": M_W1},
            "committed": {"W2": M_W2_seen, "W1": M_W1_seen},
            "slots": {"m.W2": M_m_W2, "m.W1": M_m_W1},
            "count": M_count,
        }
        out = linear(merge(norm(y_2, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


class Cms(Module):
    """`cms(x)` with chunks = (16, 64, 256), expand = 4, rate = 0.001.

    F[0]: task (learns from the task between segments; within one it is a plain map).

    F[1]: task (learns from the task between segments; within one it is a plain map).

    F[2]: task (learns from the task between segments; within one it is a plain map).
    """

    tasks = (
        TaskMemory(
            path="F[0]", every=16, weights=("W2", "W1"), rule=gd, inputs=("W", "g"), slots=(), level="f[0]"
        ),
        TaskMemory(
            path="F[1]", every=64, weights=("W2", "W1"), rule=gd, inputs=("W", "g"), slots=(), level="f[1]"
        ),
        TaskMemory(
            path="F[2]", every=256, weights=("W2", "W1"), rule=gd, inputs=("W", "g"), slots=(), level="f[2]"
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
        x_F = mlp(
            norm(x, self.x[0].norm.weight, eps=1e-06),
            adapted(self.F[0].W2, state["F[0]"], "W2"),
            adapted(self.F[0].W1, state["F[0]"], "W1"),
        )
        x_1 = x + x_F
        x_F_1 = mlp(
            norm(x_1, self.x[1].norm.weight, eps=1e-06),
            adapted(self.F[1].W2, state["F[1]"], "W2"),
            adapted(self.F[1].W1, state["F[1]"], "W1"),
        )
        x_2 = x_1 + x_F_1
        x_F_2 = mlp(
            norm(x_2, self.x[2].norm.weight, eps=1e-06),
            adapted(self.F[2].W2, state["F[2]"], "W2"),
            adapted(self.F[2].W1, state["F[2]"], "W1"),
        )
        x_3 = x_2 + x_F_2
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
