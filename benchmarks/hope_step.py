"""One token of Hope's self-modifying memories, written by hand: what the emitted loop is measured against.

The step of `self_modifying_titans` (Eq. 86-92) with all five memories on one clock: residual MLPs, dot
product objective, normalised rate, retention toward the initial state.  Shapes: `B` batch, `H` heads,
`m` = 5 memories, `d` width of a head, `h` hidden width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.activations import silu_pullback
from nldsl.runtime.values import dot, l2norm

Weights = tuple[Tensor, Tensor]


def token_step(
    W1: Tensor, W2: Tensor, base: Weights, u: Tensor, q: Tensor, start: Weights, gates: list[Tensor]
) -> tuple[Tensor, ...]:
    """The read and the new weights; `u`, `q` `[B, H, 1, d]`, `W1 [B, H, m, d, h]`, `W2 [B, H, m, h, d]`."""
    eta_weight, eta_bias, alpha_weight, alpha_bias = gates
    B1, B2 = base
    inputs = torch.stack([u, u, u, u, q], 2)
    outputs = inputs + F.silu(inputs @ B2.mT) @ B1.mT
    key, value, for_eta, for_alpha, y = outputs.unbind(2)
    k, v = l2norm(key, eps=1e-6).unsqueeze(2), l2norm(value, eps=1e-6).unsqueeze(2)
    eta = 2 * torch.sigmoid(dot(for_eta, eta_weight) + eta_bias)[:, :, None, :, None]
    alpha = torch.sigmoid(dot(for_alpha, alpha_weight) + alpha_bias)[:, :, None, :, None]
    for_k = k @ B2.mT
    z = F.silu(for_k)
    dy = -l2norm(v + F.silu(v @ B2.mT) @ B1.mT, eps=1e-6)
    d_hidden = silu_pullback(dy @ B1, for_k)
    D1, D2 = W1 - start[0], W2 - start[1]
    rate1 = eta / (1e-2 + dot(z, z).unsqueeze(-1))
    rate2 = eta / (1e-2 + dot(k, k).unsqueeze(-1))
    new1 = start[0] + alpha * D1 - rate1 * (z @ D1.mT + dy).mT @ z
    new2 = start[1] + alpha * D2 - rate2 * (k @ D2.mT + d_hidden).mT @ k
    return y, new1, new2
