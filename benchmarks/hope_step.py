"""One token of Hope's self-modifying memories, written by hand: what the emitted loop is measured against.

The step of `self_modifying_titans` (Eq. 86-92) with all five memories on one clock: residual MLPs, dot
product objective, normalised rate, retention toward the initial state.  Shapes: `B` batch, `H` heads,
`m` = 5 memories, `d` width of a head, `h` hidden width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = tuple[Tensor, Tensor]


def unit(x: Tensor) -> Tensor:
    """`x / sqrt(sum(x^2) + 1e-6)`, the norm of the specification."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def token_step(
    W1: Tensor, W2: Tensor, base: Weights, u: Tensor, q: Tensor, start: Weights, gates: list[Tensor]
) -> tuple[Tensor, ...]:
    """The read and the new weights; `u`, `q` `[B, H, 1, d]`, `W1 [B, H, m, d, h]`, `W2 [B, H, m, h, d]`."""
    eta_weight, eta_bias, alpha_weight, alpha_bias = gates
    B1, B2 = base
    inputs = torch.stack([u, u, u, u, q], 2)
    outputs = inputs + F.silu(inputs @ B2.mT) @ B1.mT
    key, value, for_eta, for_alpha, y = outputs.unbind(2)
    k, v = unit(key).unsqueeze(2), unit(value).unsqueeze(2)
    alpha = torch.sigmoid((for_alpha * alpha_weight).sum(-1) + alpha_bias)[:, :, None, :, None]
    eta = (1 + alpha) * torch.sigmoid((for_eta * eta_weight).sum(-1) + eta_bias)[:, :, None, :, None]
    for_k = k @ B2.mT
    s = torch.sigmoid(for_k)
    z = for_k * s
    dy = -unit(v + F.silu(v @ B2.mT) @ B1.mT)
    d_hidden = (dy @ B1) * (s + z * (1 - s))
    D1, D2 = W1 - start[0], W2 - start[1]
    taken1 = eta / (1e-2 + (z * z).sum(-1, keepdim=True)) * (z @ D1.mT + dy)
    taken2 = eta / (1e-2 + (k * k).sum(-1, keepdim=True)) * (k @ D2.mT + d_hidden)
    return y, start[0] + alpha * D1 - taken1.mT @ z, start[1] + alpha * D2 - taken2.mT @ k
