"""`self_modifying_titans_first`, compiled by nldsl from specs/blocks/self_modifying_titans_first.nl.  Edit
the specification, not this file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.chunk_back import chunk_step
from nldsl.runtime.delta_back import delta_kept_pullback, delta_write_pullback
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.memory import delta_write, retention_kernel
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, silu_pullback, split, sum
from nldsl.runtime.pullbacks import product, reshaped, silu_back, silu_pullback_back, summed_to
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


class SelfModifyingTitansFirst(Module):
    """`self_modifying_titans_first(x)` with chunk = 16, expand = 1, heads = 2, memory_chunk = 64, start =
    0, window = 4.

    Mk, Mv, Me, Ma: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel; no
    outer gradient goes through what is written: its backward pass, written out, is that of reads and of
    what writes leave).

    M: chunk (reads and gradients see the last commit: chunks of 64 tokens are parallel; no outer
    gradient goes through what is written: its backward pass, written out, is that of reads and of what
    writes leave).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("u.conv.weight", (32, 4), "rest", normal(0.5))
        self.declare("u.conv.bias", (32,), "rest", constant(0.0))
        self.declare("q.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("out.norm.weight", (16,), "norm", constant(1.0))
        self.declare("out.linear.weight", (32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Mk.W2", (2, 16, 16), "matrix", normal(0.25), learned=False)
        self.declare("Mk.W1", (2, 16, 16), "matrix", normal(0.25), learned=False)
        self.declare("Mv.W2", (2, 16, 16), "matrix", normal(0.25), learned=False)
        self.declare("Mv.W1", (2, 16, 16), "matrix", normal(0.25), learned=False)
        self.declare("Me.W2", (2, 16, 16), "matrix", normal(0.25), learned=False)
        self.declare("Me.W1", (2, 16, 16), "matrix", normal(0.25), learned=False)
        self.declare("Ma.W2", (2, 16, 16), "matrix", normal(0.25), learned=False)
        self.declare("Ma.W1", (2, 16, 16), "matrix", normal(0.25), learned=False)
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
        kept: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        memories_read = residual_mlp(z.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        k_Mk, v_Mv, eta_Me, alpha_Ma = memories_read.unbind(-3)
        k_l2norm = l2norm(k_Mk, eps=1e-06)
        k = torch.detach(k_l2norm)
        v_l2norm = l2norm(v_Mv, eps=1e-06)
        v = torch.detach(v_l2norm)
        alpha_sum = sum(alpha_Ma)
        alpha_mul = 0.1 * alpha_sum
        alpha_add = 4 + alpha_mul
        alpha_sigmoid = torch.sigmoid(alpha_add)
        alpha = torch.detach(alpha_sigmoid)
        alpha_sigmoid__log_of_alpha = functional.logsigmoid(alpha_add)
        alpha__log = torch.detach(alpha_sigmoid__log_of_alpha)
        eta_add = 1 + alpha
        eta_sum = sum(eta_Me)
        eta_mul = 0.1 * eta_sum
        eta_add_1 = 0 + eta_mul
        eta_sigmoid = torch.sigmoid(eta_add_1)
        eta_detach = torch.detach(eta_sigmoid)
        eta = eta_add * eta_detach
        memories_read_1 = residual_mlp(v.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        Mk_write_l2norm_stack = l2norm(memories_read_1, eps=1e-06)
        Mk_write_detach_stack = torch.detach(Mk_write_l2norm_stack)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_dot_gradient(
            k.unsqueeze(-3), Mk_write_detach_stack, memories_W2_seen, memories_W1_seen
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
            kept=kept,
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
            kept=kept,
        )
        return k, v, alpha, alpha__log, eta, memories_W2_next, memories_W1_next

    def _step_memories_back(
        self,
        z: Tensor,
        memories_W2_seen: Tensor,
        memories_W1_seen: Tensor,
        memories_W2: Tensor,
        memories_W1: Tensor,
        memories_W2_init: Tensor,
        memories_W1_init: Tensor,
        valid: Tensor | None,
        kept: Any,
        d_k: Tensor,
        d_v: Tensor,
        d_alpha: Tensor,
        d_alpha__log: Tensor,
        d_eta: Tensor,
        d_memories_W2_next: Tensor,
        d_memories_W1_next: Tensor,
    ) -> tuple[Any, ...]:
        """The gradients of the step: of its arguments, then of the parameters."""
        unsqueeze = z.unsqueeze(-3)
        mT = memories_W2_seen.mT
        out_matmul = unsqueeze @ mT
        del mT
        out_silu = functional.silu(out_matmul)
        del out_matmul
        mT_2 = memories_W1_seen.mT
        out_matmul_1 = out_silu @ mT_2
        del mT_2, out_silu
        out = unsqueeze + out_matmul_1
        del out_matmul_1, unsqueeze
        k_Mk, v_Mv, eta_Me, alpha_Ma = out.unbind(-3)
        del out
        k_l2norm = l2norm(k_Mk, eps=1e-06)
        del k_Mk
        k = torch.detach(k_l2norm)
        del k_l2norm
        v_l2norm = l2norm(v_Mv, eps=1e-06)
        del v_Mv
        v = torch.detach(v_l2norm)
        del v_l2norm
        alpha_sum = sum(alpha_Ma)
        del alpha_Ma
        alpha_mul = 0.1 * alpha_sum
        del alpha_sum
        alpha_add = 4 + alpha_mul
        del alpha_mul
        alpha_sigmoid = torch.sigmoid(alpha_add)
        alpha = torch.detach(alpha_sigmoid)
        del alpha_sigmoid
        alpha_sigmoid__log_of_alpha = functional.logsigmoid(alpha_add)
        del alpha_add
        alpha__log = torch.detach(alpha_sigmoid__log_of_alpha)
        del alpha_sigmoid__log_of_alpha
        eta_add = 1 + alpha
        del alpha
        eta_sum = sum(eta_Me)
        del eta_Me
        eta_mul = 0.1 * eta_sum
        del eta_sum
        eta_add_1 = 0 + eta_mul
        del eta_mul
        eta_sigmoid = torch.sigmoid(eta_add_1)
        del eta_add_1
        eta_detach = torch.detach(eta_sigmoid)
        del eta_sigmoid
        eta = eta_add * eta_detach
        del eta_add, eta_detach
        unsqueeze_2 = v.unsqueeze(-3)
        del v
        mT_3 = memories_W2_seen.mT
        out_matmul_2 = unsqueeze_2 @ mT_3
        del mT_3
        out_silu_2 = functional.silu(out_matmul_2)
        del out_matmul_2
        mT_4 = memories_W1_seen.mT
        out_matmul_1_2 = out_silu_2 @ mT_4
        del mT_4, out_silu_2
        out_2 = unsqueeze_2 + out_matmul_1_2
        del out_matmul_1_2, unsqueeze_2
        Mk_write_l2norm_stack = l2norm(out_2, eps=1e-06)
        del out_2
        Mk_write_detach_stack = torch.detach(Mk_write_l2norm_stack)
        del Mk_write_l2norm_stack
        unsqueeze_3 = k.unsqueeze(-3)
        del k
        neg = -Mk_write_detach_stack
        del Mk_write_detach_stack
        mT_5 = memories_W2_seen.mT
        matmul = unsqueeze_3 @ mT_5
        del mT_5
        matmul_2 = neg @ memories_W1_seen
        silu_pullback_ = silu_pullback(matmul_2, matmul)
        silu = functional.silu(matmul)
        unsqueeze_4 = alpha__log.unsqueeze(-2)
        del alpha__log
        gate = retention_kernel(log_retain=unsqueeze_4, valid=valid)
        del unsqueeze_4
        value = eta[..., None]
        unsqueeze_5 = value.unsqueeze(-3)
        del value
        times = unsqueeze_3 * unsqueeze_3
        sum_ = times.sum(-1, keepdim=True)
        del times
        plus = 0.01 + sum_
        del sum_
        over = unsqueeze_5 / plus
        del plus, unsqueeze_5
        erase_W2 = over.squeeze(-1)
        del over
        value_2 = eta[..., None]
        del eta
        unsqueeze_6 = value_2.unsqueeze(-3)
        del value_2
        times_2 = silu * silu
        sum_2 = times_2.sum(-1, keepdim=True)
        plus_2 = 0.01 + sum_2
        over_2 = unsqueeze_6 / plus_2
        del unsqueeze_6
        erase_W1 = over_2.squeeze(-1)
        d_memories_W2_next_2 = d_memories_W2_next
        d_memories_W1_next_2 = d_memories_W1_next
        d_memories_W1_next_all = delta_write_pullback(
            d_memories_W1_next_2,
            memories_W1,
            silu,
            neg,
            erase=erase_W1,
            rate=erase_W1,
            gate=gate,
            toward=memories_W1_init,
            valid=valid,
            inverse=kept[1],
        )
        del d_memories_W1_next_2, erase_W1
        d_memories_W1 = d_memories_W1_next_all.weight
        d_silu = d_memories_W1_next_all.x
        d_erase_W1 = d_memories_W1_next_all.erase
        d_erase_W1 = d_erase_W1 + d_memories_W1_next_all.rate
        d_memories_W1_init = d_memories_W1_next_all.toward
        del d_memories_W1_next_all
        d_over_2 = reshaped(d_erase_W1, over_2)
        del d_erase_W1
        d_over_2_over = d_over_2 / plus_2
        del d_over_2
        d_plus_2 = summed_to(-(d_over_2_over * over_2), plus_2)
        del d_over_2_over, over_2, plus_2
        d_sum_2 = summed_to(d_plus_2, sum_2)
        del d_plus_2, sum_2
        d_times_2 = d_sum_2.expand_as(times_2)
        del d_sum_2, times_2
        d_silu.addcmul_(d_times_2, silu, value=2)
        del d_times_2, silu
        d_memories_W2_next_all = delta_write_pullback(
            d_memories_W2_next_2,
            memories_W2,
            unsqueeze_3,
            silu_pullback_,
            erase=erase_W2,
            rate=erase_W2,
            gate=gate,
            toward=memories_W2_init,
            valid=valid,
            inverse=kept[0],
        )
        del d_memories_W2_next_2, erase_W2, gate, silu_pullback_
        d_memories_W2 = d_memories_W2_next_all.weight
        d_silu_pullback_ = d_memories_W2_next_all.dy
        d_memories_W2_init = d_memories_W2_next_all.toward
        del d_memories_W2_next_all
        d_matmul = silu_back(d_silu, matmul)
        del d_silu
        d_silu_pullback__all = silu_pullback_back(d_silu_pullback_, matmul_2, matmul)
        del d_silu_pullback_, matmul, matmul_2
        d_matmul_2 = d_silu_pullback__all[0]
        d_matmul += d_silu_pullback__all[1]
        del d_silu_pullback__all
        d_memories_W1_seen = product(neg.mT, d_matmul_2, memories_W1_seen)
        del d_matmul_2, neg
        d_memories_W2_seen = product(d_matmul.mT, unsqueeze_3, memories_W2_seen)
        del d_matmul, unsqueeze_3
        return (
            None,
            d_memories_W2_seen,
            d_memories_W1_seen,
            d_memories_W2,
            d_memories_W1,
            d_memories_W2_init,
            d_memories_W1_init,
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
        valid: Tensor | None,
        kept: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 64 tokens: what they read, and the running weights after their writes."""
        y = residual_mlp(q, M_W2_seen, M_W1_seen)
        M_write_M = residual_mlp(v, M_W2_seen, M_W1_seen)
        M_write_l2norm = l2norm(M_write_M, eps=1e-06)
        M_write_detach = torch.detach(M_write_l2norm)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_dot_gradient(
            k, M_write_detach, M_W2_seen.detach(), M_W1_seen.detach()
        )
        gate = retention_kernel(log_retain=alpha__log, valid=valid)
        erase_W2 = (eta[..., None] / (0.01 + (x_W2 * x_W2).sum(-1, keepdim=True))).squeeze(-1)
        M_W2_next = delta_write(
            M_W2,
            x_W2,
            dy_W2,
            erase=erase_W2,
            rate=erase_W2,
            gate=gate,
            toward=M_W2_init,
            valid=valid,
            kept=kept,
        )
        erase_W1 = (eta[..., None] / (0.01 + (x_W1 * x_W1).sum(-1, keepdim=True))).squeeze(-1)
        M_W1_next = delta_write(
            M_W1,
            x_W1,
            dy_W1,
            erase=erase_W1,
            rate=erase_W1,
            gate=gate,
            toward=M_W1_init,
            valid=valid,
            kept=kept,
        )
        return y, M_W2_next, M_W1_next

    def _step_M_back(
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
        kept: Any,
        d_out: Tensor,
        d_M_W2_next: Tensor,
        d_M_W1_next: Tensor,
    ) -> tuple[Any, ...]:
        """The gradients of the step: of its arguments, then of the parameters."""
        mT = M_W2_seen.mT
        out_matmul = q @ mT
        del mT
        out_silu = functional.silu(out_matmul)
        mT_2 = M_W1_seen.mT
        out_matmul_1 = out_silu @ mT_2
        del mT_2
        detach = M_W2_seen.detach()
        mT_5 = detach.mT
        del detach
        matmul = k @ mT_5
        del mT_5
        silu = functional.silu(matmul)
        del matmul
        gate = retention_kernel(log_retain=alpha__log, valid=valid)
        value = eta[..., None]
        times = k * k
        sum_ = times.sum(-1, keepdim=True)
        del times
        plus = 0.01 + sum_
        del sum_
        over = value / plus
        del plus, value
        erase_W2 = over.squeeze(-1)
        del over
        value_2 = eta[..., None]
        times_2 = silu * silu
        sum_2 = times_2.sum(-1, keepdim=True)
        del times_2
        plus_2 = 0.01 + sum_2
        del sum_2
        over_2 = value_2 / plus_2
        del plus_2, value_2
        erase_W1 = over_2.squeeze(-1)
        del over_2
        d_out_2 = d_out
        d_M_W2_next_2 = d_M_W2_next
        d_M_W1_next_2 = d_M_W1_next
        d_M_W1_next_all = delta_kept_pullback(
            d_M_W1_next_2,
            M_W1,
            silu,
            erase=erase_W1,
            gate=gate,
            toward=M_W1_init,
            valid=valid,
            inverse=kept[1],
        )
        del d_M_W1_next_2, erase_W1, silu
        d_M_W1 = d_M_W1_next_all[0]
        d_M_W1_init = d_M_W1_next_all[1]
        del d_M_W1_next_all
        d_M_W2_next_all = delta_kept_pullback(
            d_M_W2_next_2, M_W2, k, erase=erase_W2, gate=gate, toward=M_W2_init, valid=valid, inverse=kept[0]
        )
        del d_M_W2_next_2, erase_W2, gate
        d_M_W2 = d_M_W2_next_all[0]
        d_M_W2_init = d_M_W2_next_all[1]
        del d_M_W2_next_all
        d_q = summed_to(d_out_2, q)
        d_out_matmul_1 = summed_to(d_out_2, out_matmul_1)
        del d_out_2, out_matmul_1
        d_out_silu = product(d_out_matmul_1, M_W1_seen, out_silu)
        d_M_W1_seen = product(d_out_matmul_1.mT, out_silu, M_W1_seen)
        del d_out_matmul_1, out_silu
        d_out_matmul = silu_back(d_out_silu, out_matmul)
        del d_out_silu, out_matmul
        d_q = d_q + product(d_out_matmul, M_W2_seen, q)
        d_M_W2_seen = product(d_out_matmul.mT, q, M_W2_seen)
        del d_out_matmul
        return (
            d_q,
            None,
            None,
            None,
            None,
            None,
            d_M_W2_seen,
            d_M_W1_seen,
            d_M_W2,
            d_M_W1,
            d_M_W2_init,
            d_M_W1_init,
        )

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        u_conv_silu, new["u.conv"] = conv(
            x, self.u.conv.weight, self.u.conv.bias, state=state["u.conv"], mask=mask, activation="silu"
        )
        u = u_conv_silu + x
        z = 5.656854249492381 * l2norm(split(torch.detach(u), n=2), eps=1e-06)
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
        alpha_all = []
        alpha__log_all = []
        eta_all = []
        for n in range(len(grid)):
            k_n, v_n, alpha_n, alpha__log_n, eta_n, memories_W2_new, memories_W1_new = chunk_step(
                self._step_memories,
                self._step_memories_back,
                (
                    z_cut[n],
                    memories_W2_seen,
                    memories_W1_seen,
                    memories_W2,
                    memories_W1,
                    memories_W2_init,
                    memories_W1_init,
                    grid.valid[n],
                ),
                (),
                shared=(5, 6),
            )
            k_all.append(k_n)
            v_all.append(v_n)
            alpha_all.append(alpha_n)
            alpha__log_all.append(alpha__log_n)
            eta_all.append(eta_n)
            memories_W2 = memories_W2_new
            memories_W1 = memories_W1_new
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
            y_n, M_W2_new, M_W1_new = chunk_step(
                self._step_M,
                self._step_M_back,
                (
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
                ),
                (),
                shared=(10, 11),
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
    """The compiled `self_modifying_titans_first`, its parameters drawn from `seed`."""
    return Layer(SelfModifyingTitansFirst().initialise(seed), "self_modifying_titans_first")
