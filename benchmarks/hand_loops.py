"""One loop over tokens per class of memory, written by hand, that emitted forms are held against.

Every function takes the start of the memory, `[B, H, dv, dk]` for a matrix, and inputs in sequence layout
(`[B, T, H d]`, gates `[B, T, H]` or `[B, T, H d]`, in front of their sigmoids); it gives the reads
`[B, T, H d]` and the weights behind the last token.  Rows are `[B, H, 1, d]`, with one outer product per
weight and token; what depends on no state is computed for all tokens before the loop.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.hope_step import token_step

Ends = tuple[Tensor, ...]


def rows(heads: int, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Token by token `[B, H, 1, d]` of `[B, T, H d]`; `[B, H, 1, 1]` of gates `[B, T, H]`."""
    parted = (x.unflatten(2, (heads, -1)).transpose(1, 2).split(1, 2) for x in values)
    return zip(*parted, strict=True)


def joined(found: list[Tensor]) -> Tensor:
    """Reads `[B, H, 1, d]` as `[B, T, H d]`."""
    return torch.cat(found, 2).transpose(1, 2).flatten(2)


def linear(S: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> tuple[Tensor, Ends]:
    """`S' = a S + v k^T`, with a number or one per key channel for `a`: RetNet, Mamba-2, GLA."""
    found = []
    for q_t, k_t, v_t, a in rows(S.shape[1], q, k, v, gate.sigmoid()):
        S = a * S + v_t.mT @ k_t
        found.append(q_t @ S.mT)
    return joined(found), (S,)


def delta(S: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, rate: Tensor) -> tuple[Tensor, Ends]:
    """`S' = a S - b (a S k - v) k^T`, with a number or one per key channel for `a`: Gated DeltaNet, KDA."""
    found = []
    for q_t, k_t, v_t, a, b in rows(S.shape[1], q, k, v, gate.sigmoid(), rate.sigmoid()):
        S = a * S
        S = S + (b * (v_t - k_t @ S.mT)).mT @ k_t
        found.append(q_t @ S.mT)
    return joined(found), (S,)


def delta_block(
    S: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, rate: Tensor, kappa: Tensor
) -> tuple[Tensor, Ends]:
    """`S' = S (Diag(w) - kappa^T (a * kappa)) + v k^T` in rows: RWKV-7."""
    found = []
    given = rows(S.shape[1], q, k, v, gate.sigmoid(), rate.sigmoid() * kappa, kappa)
    for q_t, k_t, v_t, w, along, seen in given:
        S = w * S - (seen @ S.mT).mT @ along + v_t.mT @ k_t
        found.append(q_t @ S.mT)
    return joined(found), (S,)


def filtered(
    M: Tensor, q: Tensor, k: Tensor, v: Tensor, theta: Tensor, eta: Tensor, alpha: Tensor
) -> tuple[Tensor, Ends]:
    """`P' = eta P - theta (M k - v) k^T`, `M' = alpha M + P'`: Titans with a matrix."""
    P, found = torch.zeros_like(M), []
    for q_t, k_t, v_t, lr, beta, a in rows(M.shape[1], q, k, v, *(g.sigmoid() for g in (theta, eta, alpha))):
        P = beta * P - (lr * (k_t @ M.mT - v_t)).mT @ k_t
        M = a * M + P
        found.append(q_t @ M.mT)
    return joined(found), (M,)


def titans(
    A: Tensor,
    B: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    eta: Tensor,
    alpha: Tensor,
    *,
    chunk: int,
) -> tuple[Tensor, Ends]:
    """Titans' MLP `B silu(A k)`, gradients and reads at the weights of the last chunk's end."""
    seen, P, Q, found = (A, B), torch.zeros_like(A), torch.zeros_like(B), []
    gates = (0.01 * theta.sigmoid(), eta.sigmoid(), alpha.sigmoid())
    for t, (q_t, k_t, v_t, lr, beta, a) in enumerate(rows(A.shape[1], q, k, v, *gates)):
        if t % chunk == 0:
            seen = (A, B)
        found.append(F.silu(q_t @ seen[0].mT) @ seen[1].mT)
        pre = k_t @ seen[0].mT
        s = torch.sigmoid(pre)
        z = pre * s
        dy = z @ seen[1].mT - v_t
        dz = (dy @ seen[1]) * (s + z * (1 - s))
        P, Q = beta * P - (lr * dz).mT @ k_t, beta * Q - (lr * dy).mT @ z
        A, B = a * A + P, a * B + Q
    return joined(found), (A, B)


def hope(
    W1: Tensor, W2: Tensor, x: Tensor, q: Tensor, gates: list[Tensor], *, chunk: int
) -> tuple[Tensor, Ends]:
    """Hope's five memories on one clock (`hope_step.token_step`), from starts `[H, 5, out, in]`."""
    start = (W1, W2)
    # A view without strides over the samples would be copied by every product.
    W1, W2 = base = tuple(w.expand(x.shape[0], *w.shape).contiguous() for w in start)
    found = []
    for t, (x_t, q_t) in enumerate(rows(start[0].shape[0], x, q)):
        if t % chunk == 0:
            base = (W1, W2)
        y, W1, W2 = token_step(W1, W2, base, x_t, q_t, start, gates)
        found.append(y)
    return joined(found), (W1, W2)
