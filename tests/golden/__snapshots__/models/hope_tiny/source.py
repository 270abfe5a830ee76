"""`hope_tiny`, compiled by nldsl from specs/models/hope_tiny.nl.  Edit the specification, not this file."""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.chunk_back import chunk_step
from nldsl.runtime.delta_back import delta_write_pullback
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.kept_layers import silu_perceptron
from nldsl.runtime.memory import delta_write, retention_kernel
from nldsl.runtime.model import Model
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, embed, head, l2norm, linear, merge, norm, readout, silu_pullback, split
from nldsl.runtime.pullbacks import (
    add_product,
    l2norm_back,
    logsigmoid_back,
    product,
    readout_back,
    reshaped,
    retention_kernel_back,
    sigmoid_back,
    silu_back,
    silu_pullback_back,
    stacked,
    summed_to,
    together,
)
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


class SelfModifyingTitans(Module):
    """`self_modifying_titans(x)` with chunk = 16, expand = 1, heads = 2, memory_chunk = 64, start = 0,
    window = 4.

    Mk, Mv, Me, Ma, M: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel;
    its backward pass is written out, for checkpoints and, where every operation has a formula, for
    compiled steps).
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("u.conv.weight", (64, 4), "rest", normal(0.5))
        self.declare("u.conv.bias", (64,), "rest", constant(0.0))
        self.declare("z.norm.weight", (32,), "norm", constant(1.0))
        self.declare("q.linear.weight", (64, 64), "matrix", normal(0.125))
        self.declare("alpha.readout.weight", (2, 32), "rest", normal(0.1))
        self.declare("alpha.readout.bias", (2,), "rest", constant(4.0))
        self.declare("eta.readout.weight", (2, 32), "rest", normal(0.1))
        self.declare("eta.readout.bias", (2,), "rest", constant(0.0))
        self.declare("out.norm.weight", (32,), "norm", constant(1.0))
        self.declare("out.linear.weight", (64, 64), "matrix", normal(0.125))
        self.declare("Mk.W2", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Mk.W1", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Mv.W2", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Mv.W1", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Me.W2", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Me.W1", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Ma.W2", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("Ma.W1", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W2", (2, 32, 32), "matrix", normal(0.1767766952966369))
        self.declare("M.W1", (2, 32, 32), "matrix", normal(0.1767766952966369))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "u.conv": {"tail": self.zeros(batch, 3, 64)},
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
        q: Tensor,
        memories_W2_seen: Tensor,
        memories_W1_seen: Tensor,
        memories_W2: Tensor,
        memories_W1: Tensor,
        memories_W2_init: Tensor,
        memories_W1_init: Tensor,
        valid: Tensor | None,
        kept: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        z_stack = torch.stack((z, z, z, z, q), dim=-3)
        memories_read = residual_mlp(z_stack, memories_W2_seen, memories_W1_seen)
        k_Mk, v_Mv, eta_Me, alpha_Ma, y = memories_read.unbind(-3)
        k = l2norm(k_Mk, eps=1e-06)
        v = l2norm(v_Mv, eps=1e-06)
        memories_read_1 = residual_mlp(v.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        Mk_write_l2norm_stack = l2norm(memories_read_1, eps=1e-06)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_dot_gradient(
            k.unsqueeze(-3), Mk_write_l2norm_stack, memories_W2_seen, memories_W1_seen
        )
        alpha_readout = readout(
            alpha_Ma, self.alpha.readout.weight[:, None], self.alpha.readout.bias[:, None]
        )
        alpha__log = functional.logsigmoid(alpha_readout)
        gate = retention_kernel(log_retain=alpha__log.unsqueeze(-2), valid=valid)
        alpha = torch.sigmoid(alpha_readout)
        eta_add = 1 + alpha
        eta_readout = readout(eta_Me, self.eta.readout.weight[:, None], self.eta.readout.bias[:, None])
        eta_sigmoid = torch.sigmoid(eta_readout)
        eta = eta_add * eta_sigmoid
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
        return y, memories_W2_next, memories_W1_next

    def _step_memories_back(
        self,
        z: Tensor,
        q: Tensor,
        memories_W2_seen: Tensor,
        memories_W1_seen: Tensor,
        memories_W2: Tensor,
        memories_W1: Tensor,
        memories_W2_init: Tensor,
        memories_W1_init: Tensor,
        valid: Tensor | None,
        kept: Any,
        d_y: Tensor,
        d_memories_W2_next: Tensor,
        d_memories_W1_next: Tensor,
    ) -> tuple[Any, ...]:
        """The gradients of the step: of its arguments, then of the parameters."""
        z_stack = torch.stack((z, z, z, z, q), dim=-3)
        mT = memories_W2_seen.mT
        out_matmul = z_stack @ mT
        del mT
        out_silu = functional.silu(out_matmul)
        mT_2 = memories_W1_seen.mT
        out_matmul_1 = out_silu @ mT_2
        del mT_2
        out = z_stack + out_matmul_1
        k_Mk, v_Mv, eta_Me, alpha_Ma, y = out.unbind(-3)
        del y
        k = l2norm(k_Mk, eps=1e-06)
        v = l2norm(v_Mv, eps=1e-06)
        unsqueeze = v.unsqueeze(-3)
        mT_3 = memories_W2_seen.mT
        out_matmul_2 = unsqueeze @ mT_3
        del mT_3
        out_silu_2 = functional.silu(out_matmul_2)
        mT_4 = memories_W1_seen.mT
        out_matmul_1_2 = out_silu_2 @ mT_4
        del mT_4
        out_2 = unsqueeze + out_matmul_1_2
        Mk_write_l2norm_stack = l2norm(out_2, eps=1e-06)
        unsqueeze_2 = k.unsqueeze(-3)
        neg = -Mk_write_l2norm_stack
        mT_5 = memories_W2_seen.mT
        matmul = unsqueeze_2 @ mT_5
        del mT_5
        matmul_2 = neg @ memories_W1_seen
        silu_pullback_ = silu_pullback(matmul_2, matmul)
        silu = functional.silu(matmul)
        alpha_readout_weight = self.alpha.readout.weight
        value = alpha_readout_weight[:, None]
        alpha_readout_bias = self.alpha.readout.bias
        value_2 = alpha_readout_bias[:, None]
        alpha_readout = readout(alpha_Ma, value, value_2)
        alpha__log = functional.logsigmoid(alpha_readout)
        unsqueeze_3 = alpha__log.unsqueeze(-2)
        gate = retention_kernel(log_retain=unsqueeze_3, valid=valid)
        alpha = torch.sigmoid(alpha_readout)
        eta_add = 1 + alpha
        eta_readout_weight = self.eta.readout.weight
        value_3 = eta_readout_weight[:, None]
        eta_readout_bias = self.eta.readout.bias
        value_4 = eta_readout_bias[:, None]
        eta_readout = readout(eta_Me, value_3, value_4)
        eta_sigmoid = torch.sigmoid(eta_readout)
        del eta_readout
        eta = eta_add * eta_sigmoid
        value_5 = eta[..., None]
        unsqueeze_4 = value_5.unsqueeze(-3)
        times = unsqueeze_2 * unsqueeze_2
        sum = times.sum(-1, keepdim=True)
        plus = 0.01 + sum
        over = unsqueeze_4 / plus
        erase_W2 = over.squeeze(-1)
        value_6 = eta[..., None]
        unsqueeze_5 = value_6.unsqueeze(-3)
        times_2 = silu * silu
        sum_2 = times_2.sum(-1, keepdim=True)
        plus_2 = 0.01 + sum_2
        over_2 = unsqueeze_5 / plus_2
        erase_W1 = over_2.squeeze(-1)
        d_y_2 = d_y
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
        d_neg = d_memories_W1_next_all.dy
        d_erase_W1 = d_memories_W1_next_all.erase
        d_erase_W1 = d_erase_W1 + d_memories_W1_next_all.rate
        d_gate = d_memories_W1_next_all.gate
        d_memories_W1_init = d_memories_W1_next_all.toward
        del d_memories_W1_next_all
        d_over_2 = reshaped(d_erase_W1, over_2)
        del d_erase_W1
        d_over_2_over = d_over_2 / plus_2
        del d_over_2
        d_unsqueeze_5 = summed_to(d_over_2_over, unsqueeze_5)
        del unsqueeze_5
        d_plus_2 = summed_to(-(d_over_2_over * over_2), plus_2)
        del d_over_2_over, over_2, plus_2
        d_sum_2 = summed_to(d_plus_2, sum_2)
        del d_plus_2, sum_2
        d_times_2 = d_sum_2.expand_as(times_2)
        del d_sum_2, times_2
        d_silu.addcmul_(d_times_2, silu, value=2)
        del d_times_2, silu
        d_value_6 = reshaped(d_unsqueeze_5, value_6)
        del d_unsqueeze_5, value_6
        d_eta = reshaped(d_value_6, eta)
        del d_value_6
        d_memories_W2_next_all = delta_write_pullback(
            d_memories_W2_next_2,
            memories_W2,
            unsqueeze_2,
            silu_pullback_,
            erase=erase_W2,
            rate=erase_W2,
            gate=gate,
            toward=memories_W2_init,
            valid=valid,
            inverse=kept[0],
        )
        del d_memories_W2_next_2, erase_W2, silu_pullback_
        d_memories_W2 = d_memories_W2_next_all.weight
        d_unsqueeze_2 = d_memories_W2_next_all.x
        d_silu_pullback_ = d_memories_W2_next_all.dy
        d_erase_W2 = d_memories_W2_next_all.erase
        d_erase_W2 = d_erase_W2 + d_memories_W2_next_all.rate
        d_gate = together(d_gate, d_memories_W2_next_all.gate)
        d_memories_W2_init = d_memories_W2_next_all.toward
        del d_memories_W2_next_all
        d_over = reshaped(d_erase_W2, over)
        del d_erase_W2
        d_over_over = d_over / plus
        del d_over
        d_unsqueeze_4 = summed_to(d_over_over, unsqueeze_4)
        del unsqueeze_4
        d_plus = summed_to(-(d_over_over * over), plus)
        del d_over_over, over, plus
        d_sum = summed_to(d_plus, sum)
        del d_plus, sum
        d_times = d_sum.expand_as(times)
        del d_sum, times
        d_unsqueeze_2.addcmul_(d_times, unsqueeze_2, value=2)
        del d_times
        d_value_5 = reshaped(d_unsqueeze_4, value_5)
        del d_unsqueeze_4, value_5
        d_eta = d_eta + reshaped(d_value_5, eta)
        del d_value_5, eta
        d_eta_add = summed_to(d_eta * eta_sigmoid, eta_add)
        d_eta_sigmoid = summed_to(d_eta * eta_add, eta_sigmoid)
        del d_eta, eta_add
        d_eta_readout = sigmoid_back(d_eta_sigmoid, eta_sigmoid)
        del d_eta_sigmoid, eta_sigmoid
        d_eta_readout_all = readout_back(d_eta_readout, eta_Me, value_3, value_4)
        del d_eta_readout, eta_Me, value_3, value_4
        d_eta_Me = d_eta_readout_all[0]
        d_value_3 = d_eta_readout_all[1]
        d_value_4 = d_eta_readout_all[2]
        del d_eta_readout_all
        d_eta_readout_bias = reshaped(d_value_4, eta_readout_bias)
        del d_value_4, eta_readout_bias
        d_eta_readout_weight = reshaped(d_value_3, eta_readout_weight)
        del d_value_3, eta_readout_weight
        d_alpha = summed_to(d_eta_add, alpha)
        del d_eta_add
        d_alpha_readout = sigmoid_back(d_alpha, alpha)
        del alpha, d_alpha
        d_unsqueeze_3 = retention_kernel_back(d_gate, gate, unsqueeze_3, valid)
        del d_gate, gate, unsqueeze_3
        d_alpha__log = reshaped(d_unsqueeze_3, alpha__log)
        del alpha__log, d_unsqueeze_3
        d_alpha_readout += logsigmoid_back(d_alpha__log, alpha_readout)
        del alpha_readout, d_alpha__log
        d_alpha_readout_all = readout_back(d_alpha_readout, alpha_Ma, value, value_2)
        del alpha_Ma, d_alpha_readout, value, value_2
        d_alpha_Ma = d_alpha_readout_all[0]
        d_value = d_alpha_readout_all[1]
        d_value_2 = d_alpha_readout_all[2]
        del d_alpha_readout_all
        d_alpha_readout_bias = reshaped(d_value_2, alpha_readout_bias)
        del alpha_readout_bias, d_value_2
        d_alpha_readout_weight = reshaped(d_value, alpha_readout_weight)
        del alpha_readout_weight, d_value
        d_matmul = silu_back(d_silu, matmul)
        del d_silu
        d_silu_pullback__all = silu_pullback_back(d_silu_pullback_, matmul_2, matmul)
        del d_silu_pullback_, matmul, matmul_2
        d_matmul_2 = d_silu_pullback__all[0]
        d_matmul += d_silu_pullback__all[1]
        del d_silu_pullback__all
        add_product(d_neg, d_matmul_2, memories_W1_seen.mT)
        d_memories_W1_seen = product(neg.mT, d_matmul_2, memories_W1_seen)
        del d_matmul_2, neg
        add_product(d_unsqueeze_2, d_matmul, memories_W2_seen)
        d_memories_W2_seen = product(d_matmul.mT, unsqueeze_2, memories_W2_seen)
        del d_matmul, unsqueeze_2
        d_Mk_write_l2norm_stack = -d_neg
        del d_neg
        d_k = reshaped(d_unsqueeze_2, k)
        del d_unsqueeze_2
        d_out_2 = l2norm_back(d_Mk_write_l2norm_stack, Mk_write_l2norm_stack, out_2, eps=1e-06)
        del Mk_write_l2norm_stack, d_Mk_write_l2norm_stack, out_2
        d_unsqueeze = summed_to(d_out_2, unsqueeze)
        d_out_matmul_1_2 = summed_to(d_out_2, out_matmul_1_2)
        del d_out_2, out_matmul_1_2
        d_out_silu_2 = product(d_out_matmul_1_2, memories_W1_seen, out_silu_2)
        add_product(d_memories_W1_seen, d_out_matmul_1_2.mT, out_silu_2)
        del d_out_matmul_1_2, out_silu_2
        d_out_matmul_2 = silu_back(d_out_silu_2, out_matmul_2)
        del d_out_silu_2, out_matmul_2
        d_unsqueeze = d_unsqueeze + product(d_out_matmul_2, memories_W2_seen, unsqueeze)
        add_product(d_memories_W2_seen, d_out_matmul_2.mT, unsqueeze)
        del d_out_matmul_2, unsqueeze
        d_v = reshaped(d_unsqueeze, v)
        del d_unsqueeze
        d_v_Mv = l2norm_back(d_v, v, v_Mv, eps=1e-06)
        del d_v, v, v_Mv
        d_k_Mk = l2norm_back(d_k, k, k_Mk, eps=1e-06)
        del d_k, k, k_Mk
        d_out = stacked((d_k_Mk, d_v_Mv, d_eta_Me, d_alpha_Ma, d_y_2), out, -3)
        del d_alpha_Ma, d_eta_Me, d_k_Mk, d_v_Mv, d_y_2, out
        d_z_stack = summed_to(d_out, z_stack)
        d_out_matmul_1 = summed_to(d_out, out_matmul_1)
        del d_out, out_matmul_1
        d_out_silu = product(d_out_matmul_1, memories_W1_seen, out_silu)
        add_product(d_memories_W1_seen, d_out_matmul_1.mT, out_silu)
        del d_out_matmul_1, out_silu
        d_out_matmul = silu_back(d_out_silu, out_matmul)
        del d_out_silu, out_matmul
        d_z_stack = d_z_stack + product(d_out_matmul, memories_W2_seen, z_stack)
        add_product(d_memories_W2_seen, d_out_matmul.mT, z_stack)
        del d_out_matmul, z_stack
        z_stack_part, z_stack_part_2, z_stack_part_3, z_stack_part_4, z_stack_part_5 = d_z_stack.unbind(-3)
        del d_z_stack
        d_z = z_stack_part
        del z_stack_part
        d_z = d_z + z_stack_part_2
        del z_stack_part_2
        d_z += z_stack_part_3
        del z_stack_part_3
        d_z += z_stack_part_4
        del z_stack_part_4
        d_q = z_stack_part_5
        del z_stack_part_5
        return (
            d_z,
            d_q,
            d_memories_W2_seen,
            d_memories_W1_seen,
            d_memories_W2,
            d_memories_W1,
            d_memories_W2_init,
            d_memories_W1_init,
            d_alpha_readout_weight,
            d_alpha_readout_bias,
            d_eta_readout_weight,
            d_eta_readout_bias,
        )

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        u_conv_silu, new["u.conv"] = conv(
            x, self.u.conv.weight, self.u.conv.bias, state=state["u.conv"], mask=mask, activation="silu"
        )
        u = u_conv_silu + x
        z = norm(split(u, n=2), self.z.norm.weight, eps=1e-06)
        q = l2norm(split(linear(u, self.q.linear.weight), n=2), eps=1e-06)
        grid = ChunkGrid(state["Mk"]["count"], mask, x.shape[1], 16)
        z_cut = grid.cut(z, "headed")
        q_cut = grid.cut(q, "headed")
        memories_W2 = side_by_side(
            (
                state["Mk"]["running"]["W2"],
                state["Mv"]["running"]["W2"],
                state["Me"]["running"]["W2"],
                state["Ma"]["running"]["W2"],
                state["M"]["running"]["W2"],
            ),
            dim=2,
        )
        memories_W1 = side_by_side(
            (
                state["Mk"]["running"]["W1"],
                state["Mv"]["running"]["W1"],
                state["Me"]["running"]["W1"],
                state["Ma"]["running"]["W1"],
                state["M"]["running"]["W1"],
            ),
            dim=2,
        )
        memories_W2_seen = side_by_side(
            (
                state["Mk"]["committed"]["W2"],
                state["Mv"]["committed"]["W2"],
                state["Me"]["committed"]["W2"],
                state["Ma"]["committed"]["W2"],
                state["M"]["committed"]["W2"],
            ),
            dim=2,
        )
        memories_W1_seen = side_by_side(
            (
                state["Mk"]["committed"]["W1"],
                state["Mv"]["committed"]["W1"],
                state["Me"]["committed"]["W1"],
                state["Ma"]["committed"]["W1"],
                state["M"]["committed"]["W1"],
            ),
            dim=2,
        )
        memories_W2_init = side_by_side((self.Mk.W2, self.Mv.W2, self.Me.W2, self.Ma.W2, self.M.W2), dim=1)
        memories_W1_init = side_by_side((self.Mk.W1, self.Mv.W1, self.Me.W1, self.Ma.W1, self.M.W1), dim=1)
        y_all = []
        for n in range(len(grid)):
            y_n, memories_W2_new, memories_W1_new = chunk_step(
                self._step_memories,
                self._step_memories_back,
                (
                    z_cut[n],
                    q_cut[n],
                    memories_W2_seen,
                    memories_W1_seen,
                    memories_W2,
                    memories_W1,
                    memories_W2_init,
                    memories_W1_init,
                    grid.valid[n],
                ),
                (
                    self.alpha.readout.weight,
                    self.alpha.readout.bias,
                    self.eta.readout.weight,
                    self.eta.readout.bias,
                ),
                shared=(6, 7),
            )
            y_all.append(y_n)
            memories_W2 = memories_W2_new
            memories_W1 = memories_W1_new
            memories_W2_seen = choose(grid.ends(16)[n], memories_W2, memories_W2_seen)
            memories_W1_seen = choose(grid.ends(16)[n], memories_W1, memories_W1_seen)
        y = grid.join(y_all, "headed")
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
        new["M"] = {
            "running": {"W2": memories_W2.select(2, 4), "W1": memories_W1.select(2, 4)},
            "committed": {"W2": memories_W2_seen.select(2, 4), "W1": memories_W1_seen.select(2, 4)},
            "count": grid.count,
        }
        out = linear(merge(norm(y, self.out.norm.weight, eps=1e-06)), self.out.linear.weight)
        return out, new


class Cms(Module):
    """`cms(x)` with chunks = (64, 256), expand = 4, rate = 0.001.

    F[0]: task (learns from the task between segments; within one it is a plain map).

    F[1]: task (learns from the task between segments; within one it is a plain map).
    """

    tasks = (
        TaskMemory(
            path="F[0]",
            every=64,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="f[0]",
            descent=0.001,
        ),
        TaskMemory(
            path="F[1]",
            every=256,
            weights=("W2", "W1"),
            rule=gd,
            inputs=("W", "g"),
            slots=(),
            level="f[1]",
            descent=0.001,
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.declare("x[0].norm.weight", (64,), "norm", constant(1.0))
        self.declare("x[1].norm.weight", (64,), "norm", constant(1.0))
        self.declare("F[0].W2", (256, 64), "matrix", normal(0.125))
        self.declare("F[0].W1", (64, 256), "matrix", normal(0.0625))
        self.declare("F[1].W2", (256, 64), "matrix", normal(0.125))
        self.declare("F[1].W1", (64, 256), "matrix", normal(0.0625))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "F[0]": {"delta": None, "count": self.counter(batch)},
            "F[1]": {"delta": None, "count": self.counter(batch)},
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
        new["F[0]"] = state["F[0]"]
        new["F[1]"] = state["F[1]"]
        return x_2, new


class HopeBlocks(Module):
    """`hope_blocks(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.norm.weight", (64,), "norm", constant(1.0))
        self.attach("self_modifying_titans", SelfModifyingTitans())
        self.attach("cms", Cms())

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state before the first token of `batch` sequences."""
        return {
            "self_modifying_titans": self.self_modifying_titans.initial_state(batch),
            "cms": self.cms.initial_state(batch),
        }

    def forward(self, x: Tensor, state: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        """All tokens of a call: outputs and the state after them."""
        new: dict[str, Any] = {}
        x_self_modifying_titans, new["self_modifying_titans"] = self.self_modifying_titans(
            norm(x, self.x.norm.weight, eps=1e-06), state["self_modifying_titans"], mask
        )
        x_1 = x + x_self_modifying_titans
        x_2, new["cms"] = self.cms(x_1, state["cms"], mask)
        return x_2, new


class Hope(Module):
    """`hope(tokens)` with chunks = (64, 256), depth = 2, dim = 64, heads = 2, mixer =
    self_modifying_titans, system = cms, vocab = 256.
    """

    def __init__(self) -> None:
        super().__init__()
        self.declare("x.embed.weight", (256, 64), "embedding", normal(1.0))
        self.declare("out.norm.weight", (64,), "norm", constant(1.0))
        self.declare("out.head.weight", (256, 64), "head", normal(0.125))
        self.attach_repeated("blocks", [HopeBlocks() for _ in range(2)])

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
    """The compiled `hope_tiny`, its parameters drawn from `seed`."""
    return Model(Hope().initialise(seed), "hope_tiny", carry="exact")
