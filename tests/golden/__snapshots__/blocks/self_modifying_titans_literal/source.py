"""`self_modifying_titans_literal`, compiled by nldsl from specs/blocks/self_modifying_titans_literal.nl.
Edit the specification, not this file.
"""

from __future__ import annotations

from typing import Any

import torch
from nldsl.runtime.chunk_back import chunk_step
from nldsl.runtime.delta_back import delta_write_pullback
from nldsl.runtime.grid import ChunkGrid, choose
from nldsl.runtime.memory import delta_write, retention_kernel
from nldsl.runtime.model import Layer
from nldsl.runtime.module import Module, constant, normal
from nldsl.runtime.ops import conv, l2norm, linear, merge, norm, readout, silu_pullback, split
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


class SelfModifyingTitansLiteral(Module):
    """`self_modifying_titans_literal(x)` with chunk = 16, expand = 1, heads = 2, memory_chunk = 64, window
    = 4.

    Mk, Mv, Me, Ma: chunk (reads and gradients see the last commit: chunks of 16 tokens are parallel;
    its backward pass is written out, for checkpoints and, where every operation has a formula, for
    compiled steps).

    M: chunk (reads and gradients see the last commit: chunks of 64 tokens are parallel; its backward
    pass is written out, for checkpoints and, where every operation has a formula, for compiled steps).
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
        valid: Tensor | None,
        kept: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At most 16 tokens: what they read, and the running weights after their writes."""
        memories_read = residual_mlp(z.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        k_Mk, v, eta_Me, alpha_Ma = memories_read.unbind(-3)
        k = l2norm(k_Mk, eps=1e-06)
        eta_readout = readout(eta_Me, self.eta.readout.weight[:, None], self.eta.readout.bias[:, None])
        eta = torch.sigmoid(eta_readout)
        alpha_readout = readout(
            alpha_Ma, self.alpha.readout.weight[:, None], self.alpha.readout.bias[:, None]
        )
        alpha = torch.sigmoid(alpha_readout)
        alpha__log = functional.logsigmoid(alpha_readout)
        memories_read_1 = residual_mlp(v.unsqueeze(-3), memories_W2_seen, memories_W1_seen)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_l2_gradient(
            k.unsqueeze(-3), memories_read_1, memories_W2_seen, memories_W1_seen
        )
        gate = retention_kernel(log_retain=alpha__log.unsqueeze(-2), valid=valid)
        erase_W2 = eta[..., None].unsqueeze(-3).squeeze(-1)
        memories_W2_next = delta_write(
            memories_W2, x_W2, dy_W2, erase=erase_W2, rate=erase_W2, gate=gate, valid=valid, kept=kept
        )
        erase_W1 = eta[..., None].unsqueeze(-3).squeeze(-1)
        memories_W1_next = delta_write(
            memories_W1, x_W1, dy_W1, erase=erase_W1, rate=erase_W1, gate=gate, valid=valid, kept=kept
        )
        return k, v, eta, alpha, alpha__log, memories_W2_next, memories_W1_next

    def _step_memories_back(
        self,
        z: Tensor,
        memories_W2_seen: Tensor,
        memories_W1_seen: Tensor,
        memories_W2: Tensor,
        memories_W1: Tensor,
        valid: Tensor | None,
        kept: Any,
        d_k: Tensor,
        d_v: Tensor,
        d_eta: Tensor,
        d_alpha: Tensor,
        d_alpha__log: Tensor,
        d_memories_W2_next: Tensor,
        d_memories_W1_next: Tensor,
    ) -> tuple[Any, ...]:
        """The gradients of the step: of its arguments, then of the parameters."""
        unsqueeze = z.unsqueeze(-3)
        mT = memories_W2_seen.mT
        out_matmul = unsqueeze @ mT
        del mT
        out_silu = functional.silu(out_matmul)
        mT_2 = memories_W1_seen.mT
        out_matmul_1 = out_silu @ mT_2
        del mT_2
        out = unsqueeze + out_matmul_1
        k_Mk, v, eta_Me, alpha_Ma = out.unbind(-3)
        k = l2norm(k_Mk, eps=1e-06)
        eta_readout_weight = self.eta.readout.weight
        value = eta_readout_weight[:, None]
        eta_readout_bias = self.eta.readout.bias
        value_2 = eta_readout_bias[:, None]
        eta_readout = readout(eta_Me, value, value_2)
        eta = torch.sigmoid(eta_readout)
        del eta_readout
        alpha_readout_weight = self.alpha.readout.weight
        value_3 = alpha_readout_weight[:, None]
        alpha_readout_bias = self.alpha.readout.bias
        value_4 = alpha_readout_bias[:, None]
        alpha_readout = readout(alpha_Ma, value_3, value_4)
        alpha = torch.sigmoid(alpha_readout)
        alpha__log = functional.logsigmoid(alpha_readout)
        unsqueeze_2 = v.unsqueeze(-3)
        mT_3 = memories_W2_seen.mT
        out_matmul_2 = unsqueeze_2 @ mT_3
        del mT_3
        out_silu_2 = functional.silu(out_matmul_2)
        mT_4 = memories_W1_seen.mT
        out_matmul_1_2 = out_silu_2 @ mT_4
        del mT_4
        out_2 = unsqueeze_2 + out_matmul_1_2
        unsqueeze_3 = k.unsqueeze(-3)
        mT_5 = memories_W2_seen.mT
        matmul = unsqueeze_3 @ mT_5
        del mT_5
        silu = functional.silu(matmul)
        mT_6 = memories_W1_seen.mT
        matmul_2 = silu @ mT_6
        del mT_6
        plus = unsqueeze_3 + matmul_2
        sub = plus - out_2
        matmul_3 = sub @ memories_W1_seen
        silu_pullback_ = silu_pullback(matmul_3, matmul)
        unsqueeze_4 = alpha__log.unsqueeze(-2)
        gate = retention_kernel(log_retain=unsqueeze_4, valid=valid)
        value_5 = eta[..., None]
        unsqueeze_5 = value_5.unsqueeze(-3)
        erase_W2 = unsqueeze_5.squeeze(-1)
        value_6 = eta[..., None]
        unsqueeze_6 = value_6.unsqueeze(-3)
        erase_W1 = unsqueeze_6.squeeze(-1)
        d_k_2 = d_k
        d_v_2 = d_v
        d_eta_2 = d_eta
        d_alpha_2 = d_alpha
        d_alpha__log_2 = d_alpha__log
        d_memories_W2_next_2 = d_memories_W2_next
        d_memories_W1_next_2 = d_memories_W1_next
        d_memories_W1_next_all = delta_write_pullback(
            d_memories_W1_next_2,
            memories_W1,
            silu,
            sub,
            erase=erase_W1,
            rate=erase_W1,
            gate=gate,
            valid=valid,
            inverse=kept[1],
        )
        del d_memories_W1_next_2, erase_W1
        d_memories_W1 = d_memories_W1_next_all.weight
        d_silu = d_memories_W1_next_all.x
        d_sub = d_memories_W1_next_all.dy
        d_erase_W1 = d_memories_W1_next_all.erase
        d_erase_W1 = d_erase_W1 + d_memories_W1_next_all.rate
        d_gate = d_memories_W1_next_all.gate
        del d_memories_W1_next_all
        d_unsqueeze_6 = reshaped(d_erase_W1, unsqueeze_6)
        del d_erase_W1, unsqueeze_6
        d_value_6 = reshaped(d_unsqueeze_6, value_6)
        del d_unsqueeze_6, value_6
        d_eta_2 = d_eta_2 + reshaped(d_value_6, eta)
        del d_value_6
        d_memories_W2_next_all = delta_write_pullback(
            d_memories_W2_next_2,
            memories_W2,
            unsqueeze_3,
            silu_pullback_,
            erase=erase_W2,
            rate=erase_W2,
            gate=gate,
            valid=valid,
            inverse=kept[0],
        )
        del d_memories_W2_next_2, erase_W2, silu_pullback_
        d_memories_W2 = d_memories_W2_next_all.weight
        d_unsqueeze_3 = d_memories_W2_next_all.x
        d_silu_pullback_ = d_memories_W2_next_all.dy
        d_erase_W2 = d_memories_W2_next_all.erase
        d_erase_W2 = d_erase_W2 + d_memories_W2_next_all.rate
        d_gate = together(d_gate, d_memories_W2_next_all.gate)
        del d_memories_W2_next_all
        d_unsqueeze_5 = reshaped(d_erase_W2, unsqueeze_5)
        del d_erase_W2, unsqueeze_5
        d_value_5 = reshaped(d_unsqueeze_5, value_5)
        del d_unsqueeze_5, value_5
        d_eta_2 += reshaped(d_value_5, eta)
        del d_value_5
        d_unsqueeze_4 = retention_kernel_back(d_gate, gate, unsqueeze_4, valid)
        del d_gate, gate, unsqueeze_4
        d_alpha__log_2 = d_alpha__log_2 + reshaped(d_unsqueeze_4, alpha__log)
        del alpha__log, d_unsqueeze_4
        d_silu_pullback__all = silu_pullback_back(d_silu_pullback_, matmul_3, matmul)
        del d_silu_pullback_, matmul_3
        d_matmul_3 = d_silu_pullback__all[0]
        d_matmul = d_silu_pullback__all[1]
        del d_silu_pullback__all
        add_product(d_sub, d_matmul_3, memories_W1_seen.mT)
        d_memories_W1_seen = product(sub.mT, d_matmul_3, memories_W1_seen)
        del d_matmul_3, sub
        d_plus = summed_to(d_sub, plus)
        del plus
        d_out_2 = summed_to(-d_sub, out_2)
        del d_sub, out_2
        d_unsqueeze_3 += summed_to(d_plus, unsqueeze_3)
        d_matmul_2 = summed_to(d_plus, matmul_2)
        del d_plus, matmul_2
        add_product(d_silu, d_matmul_2, memories_W1_seen)
        add_product(d_memories_W1_seen, d_matmul_2.mT, silu)
        del d_matmul_2, silu
        d_matmul = d_matmul + silu_back(d_silu, matmul)
        del d_silu, matmul
        add_product(d_unsqueeze_3, d_matmul, memories_W2_seen)
        d_memories_W2_seen = product(d_matmul.mT, unsqueeze_3, memories_W2_seen)
        del d_matmul, unsqueeze_3
        d_k_2 = d_k_2 + reshaped(d_unsqueeze_3, k)
        del d_unsqueeze_3
        d_unsqueeze_2 = summed_to(d_out_2, unsqueeze_2)
        d_out_matmul_1_2 = summed_to(d_out_2, out_matmul_1_2)
        del d_out_2, out_matmul_1_2
        d_out_silu_2 = product(d_out_matmul_1_2, memories_W1_seen, out_silu_2)
        add_product(d_memories_W1_seen, d_out_matmul_1_2.mT, out_silu_2)
        del d_out_matmul_1_2, out_silu_2
        d_out_matmul_2 = silu_back(d_out_silu_2, out_matmul_2)
        del d_out_silu_2, out_matmul_2
        d_unsqueeze_2 = d_unsqueeze_2 + product(d_out_matmul_2, memories_W2_seen, unsqueeze_2)
        add_product(d_memories_W2_seen, d_out_matmul_2.mT, unsqueeze_2)
        del d_out_matmul_2, unsqueeze_2
        d_v_2 = d_v_2 + reshaped(d_unsqueeze_2, v)
        del d_unsqueeze_2, v
        d_alpha_readout = logsigmoid_back(d_alpha__log_2, alpha_readout)
        del alpha_readout, d_alpha__log_2
        d_alpha_readout += sigmoid_back(d_alpha_2, alpha)
        del alpha, d_alpha_2
        d_alpha_readout_all = readout_back(d_alpha_readout, alpha_Ma, value_3, value_4)
        del alpha_Ma, d_alpha_readout, value_3, value_4
        d_alpha_Ma = d_alpha_readout_all[0]
        d_value_3 = d_alpha_readout_all[1]
        d_value_4 = d_alpha_readout_all[2]
        del d_alpha_readout_all
        d_alpha_readout_bias = reshaped(d_value_4, alpha_readout_bias)
        del alpha_readout_bias, d_value_4
        d_alpha_readout_weight = reshaped(d_value_3, alpha_readout_weight)
        del alpha_readout_weight, d_value_3
        d_eta_readout = sigmoid_back(d_eta_2, eta)
        del d_eta_2, eta
        d_eta_readout_all = readout_back(d_eta_readout, eta_Me, value, value_2)
        del d_eta_readout, eta_Me, value, value_2
        d_eta_Me = d_eta_readout_all[0]
        d_value = d_eta_readout_all[1]
        d_value_2 = d_eta_readout_all[2]
        del d_eta_readout_all
        d_eta_readout_bias = reshaped(d_value_2, eta_readout_bias)
        del d_value_2, eta_readout_bias
        d_eta_readout_weight = reshaped(d_value, eta_readout_weight)
        del d_value, eta_readout_weight
        d_k_Mk = l2norm_back(d_k_2, k, k_Mk, eps=1e-06)
        del d_k_2, k, k_Mk
        d_out = stacked((d_k_Mk, d_v_2, d_eta_Me, d_alpha_Ma), out, -3)
        del d_alpha_Ma, d_eta_Me, d_k_Mk, d_v_2, out
        d_unsqueeze = summed_to(d_out, unsqueeze)
        d_out_matmul_1 = summed_to(d_out, out_matmul_1)
        del d_out, out_matmul_1
        d_out_silu = product(d_out_matmul_1, memories_W1_seen, out_silu)
        add_product(d_memories_W1_seen, d_out_matmul_1.mT, out_silu)
        del d_out_matmul_1, out_silu
        d_out_matmul = silu_back(d_out_silu, out_matmul)
        del d_out_silu, out_matmul
        d_unsqueeze = d_unsqueeze + product(d_out_matmul, memories_W2_seen, unsqueeze)
        add_product(d_memories_W2_seen, d_out_matmul.mT, unsqueeze)
        del d_out_matmul, unsqueeze
        d_z = reshaped(d_unsqueeze, z)
        del d_unsqueeze
        return (
            d_z,
            d_memories_W2_seen,
            d_memories_W1_seen,
            d_memories_W2,
            d_memories_W1,
            d_eta_readout_weight,
            d_eta_readout_bias,
            d_alpha_readout_weight,
            d_alpha_readout_bias,
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
        valid: Tensor | None,
        kept: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At most 64 tokens: what they read, and the running weights after their writes."""
        y = residual_mlp(q, M_W2_seen, M_W1_seen)
        M_write_M = residual_mlp(v, M_W2_seen, M_W1_seen)
        x_W2, dy_W2, x_W1, dy_W1 = residual_mlp_l2_gradient(k, M_write_M, M_W2_seen, M_W1_seen)
        gate = retention_kernel(log_retain=alpha__log, valid=valid)
        erase_W2 = eta
        M_W2_next = delta_write(
            M_W2, x_W2, dy_W2, erase=erase_W2, rate=erase_W2, gate=gate, valid=valid, kept=kept
        )
        erase_W1 = eta
        M_W1_next = delta_write(
            M_W1, x_W1, dy_W1, erase=erase_W1, rate=erase_W1, gate=gate, valid=valid, kept=kept
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
        mT_3 = M_W2_seen.mT
        out_matmul_2 = v @ mT_3
        del mT_3
        out_silu_2 = functional.silu(out_matmul_2)
        mT_4 = M_W1_seen.mT
        out_matmul_1_2 = out_silu_2 @ mT_4
        del mT_4
        out_2 = v + out_matmul_1_2
        mT_5 = M_W2_seen.mT
        matmul = k @ mT_5
        del mT_5
        silu = functional.silu(matmul)
        mT_6 = M_W1_seen.mT
        matmul_2 = silu @ mT_6
        del mT_6
        plus = k + matmul_2
        sub = plus - out_2
        matmul_3 = sub @ M_W1_seen
        silu_pullback_ = silu_pullback(matmul_3, matmul)
        gate = retention_kernel(log_retain=alpha__log, valid=valid)
        d_out_2 = d_out
        d_M_W2_next_2 = d_M_W2_next
        d_M_W1_next_2 = d_M_W1_next
        d_M_W1_next_all = delta_write_pullback(
            d_M_W1_next_2, M_W1, silu, sub, erase=eta, rate=eta, gate=gate, valid=valid, inverse=kept[1]
        )
        del d_M_W1_next_2
        d_M_W1 = d_M_W1_next_all.weight
        d_silu = d_M_W1_next_all.x
        d_sub = d_M_W1_next_all.dy
        d_eta = d_M_W1_next_all.erase
        d_eta = d_eta + d_M_W1_next_all.rate
        d_gate = d_M_W1_next_all.gate
        del d_M_W1_next_all
        d_M_W2_next_all = delta_write_pullback(
            d_M_W2_next_2,
            M_W2,
            k,
            silu_pullback_,
            erase=eta,
            rate=eta,
            gate=gate,
            valid=valid,
            inverse=kept[0],
        )
        del d_M_W2_next_2, silu_pullback_
        d_M_W2 = d_M_W2_next_all.weight
        d_k = d_M_W2_next_all.x
        d_silu_pullback_ = d_M_W2_next_all.dy
        d_eta += d_M_W2_next_all.erase
        d_eta += d_M_W2_next_all.rate
        d_gate = together(d_gate, d_M_W2_next_all.gate)
        del d_M_W2_next_all
        d_alpha__log = retention_kernel_back(d_gate, gate, alpha__log, valid)
        del d_gate, gate
        d_silu_pullback__all = silu_pullback_back(d_silu_pullback_, matmul_3, matmul)
        del d_silu_pullback_, matmul_3
        d_matmul_3 = d_silu_pullback__all[0]
        d_matmul = d_silu_pullback__all[1]
        del d_silu_pullback__all
        add_product(d_sub, d_matmul_3, M_W1_seen.mT)
        d_M_W1_seen = product(sub.mT, d_matmul_3, M_W1_seen)
        del d_matmul_3, sub
        d_plus = summed_to(d_sub, plus)
        del plus
        d_out_2_2 = summed_to(-d_sub, out_2)
        del d_sub, out_2
        d_k += summed_to(d_plus, k)
        d_matmul_2 = summed_to(d_plus, matmul_2)
        del d_plus, matmul_2
        add_product(d_silu, d_matmul_2, M_W1_seen)
        add_product(d_M_W1_seen, d_matmul_2.mT, silu)
        del d_matmul_2, silu
        d_matmul = d_matmul + silu_back(d_silu, matmul)
        del d_silu, matmul
        add_product(d_k, d_matmul, M_W2_seen)
        d_M_W2_seen = product(d_matmul.mT, k, M_W2_seen)
        del d_matmul
        d_v = summed_to(d_out_2_2, v)
        d_out_matmul_1_2 = summed_to(d_out_2_2, out_matmul_1_2)
        del d_out_2_2, out_matmul_1_2
        d_out_silu_2 = product(d_out_matmul_1_2, M_W1_seen, out_silu_2)
        add_product(d_M_W1_seen, d_out_matmul_1_2.mT, out_silu_2)
        del d_out_matmul_1_2, out_silu_2
        d_out_matmul_2 = silu_back(d_out_silu_2, out_matmul_2)
        del d_out_silu_2, out_matmul_2
        d_v = d_v + product(d_out_matmul_2, M_W2_seen, v)
        add_product(d_M_W2_seen, d_out_matmul_2.mT, v)
        del d_out_matmul_2
        d_q = summed_to(d_out_2, q)
        d_out_matmul_1 = summed_to(d_out_2, out_matmul_1)
        del d_out_2, out_matmul_1
        d_out_silu = product(d_out_matmul_1, M_W1_seen, out_silu)
        add_product(d_M_W1_seen, d_out_matmul_1.mT, out_silu)
        del d_out_matmul_1, out_silu
        d_out_matmul = silu_back(d_out_silu, out_matmul)
        del d_out_silu, out_matmul
        d_q = d_q + product(d_out_matmul, M_W2_seen, q)
        add_product(d_M_W2_seen, d_out_matmul.mT, q)
        del d_out_matmul
        return d_q, d_v, d_k, d_eta, None, d_alpha__log, d_M_W2_seen, d_M_W1_seen, d_M_W2, d_M_W1

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
        k_all = []
        v_all = []
        eta_all = []
        alpha_all = []
        alpha__log_all = []
        for n in range(len(grid)):
            k_n, v_n, eta_n, alpha_n, alpha__log_n, memories_W2_new, memories_W1_new = chunk_step(
                self._step_memories,
                self._step_memories_back,
                (z_cut[n], memories_W2_seen, memories_W1_seen, memories_W2, memories_W1, grid.valid[n]),
                (
                    self.eta.readout.weight,
                    self.eta.readout.bias,
                    self.alpha.readout.weight,
                    self.alpha.readout.bias,
                ),
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
                    grid_2.valid[n_2],
                ),
                (),
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
    """The compiled `self_modifying_titans_literal`, its parameters drawn from `seed`."""
    return Layer(SelfModifyingTitansLiteral().initialise(seed), "self_modifying_titans_literal")
