"""Cases of `benchmarks.kernels` for matrix memories with gates per channel, several pieces, momentum.

The kernels choose their chunks.  FLOPs by fixed formulas per chunk of 64, forward, never counted from the
code: D `4 C^2 d + 4 C d^2`, R `10 C^2 d + 8 C d^2 + 2 d^3 + 2 C^3`, two keys (DPLR)
`18 C^2 d + 10 C d^2 + 2 d^3 + 2 C^3`, filtered R `4 C^2 d + 10 C d^2`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Momentum, Piece, Step, Write

Run = Callable[..., Tensor]


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().clone().requires_grad_() for t in tensors]


def channel_cases(
    batch: int,
    heads: int,
    size: int,
    tokens: int,
    chunk: int,
    make: Callable[..., MatrixMemory] = MatrixMemory,
) -> dict[str, tuple[Run, list[Tensor], float]]:
    """Name -> (function of its inputs, inputs, FLOPs of the forward pass); `make` makes the memories."""
    shape = (batch, tokens, heads)
    q, k, v = (torch.randn(*shape, size) for _ in range(3))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    fade, rate = -0.1 * torch.rand(*shape, size), torch.rand(*shape)
    gate, slow = -0.1 * torch.rand(*shape), -torch.rand(*shape)
    state = torch.zeros(batch, heads, size, size)
    ones = torch.ones(*shape)

    def read(q: Tensor, *steps: Step, momentum: Momentum | None = None) -> Tensor:
        memory = make(state, steps, mask=None, momentum=momentum)
        return memory.read(q, at=len(steps))

    def linear(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        return read(q, Gate(log=g), Write((Piece(k, v),)))

    def delta(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor) -> Tensor:
        return read(q, Gate(log=g), Write((Piece(k, v * b.unsqueeze(-1), k, b),)))

    def block(q: Tensor, k: Tensor, v: Tensor, g: Tensor, seen: Tensor, along: Tensor) -> Tensor:
        pieces = (Piece(along, torch.zeros_like(v), seen, ones), Piece(k, v))
        return read(q, Write(pieces, Gate(log=g)))

    def filtered(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor, m: Tensor) -> Tensor:
        momentum = Momentum(Gate(log=m), None, state)
        return read(q, Write((Piece(k, v * b.unsqueeze(-1), k, b),), Gate(log=g)), momentum=momentum)

    c, d, chunks = chunk, size, batch * heads * tokens / chunk
    solve = 2 * d**3 + 2 * c**3
    return {
        "linear_channel": (linear, _leaves(q, k, v, fade), chunks * (4 * c * c * d + 4 * c * d * d)),
        "delta_channel": (
            delta,
            _leaves(q, k, v, fade, rate),
            chunks * (10 * c * c * d + 8 * c * d * d + solve),
        ),
        "delta_block": (
            block,
            _leaves(q, k, v, fade, 0.5 * k, 0.5 * k),
            chunks * (18 * c * c * d + 10 * c * d * d + solve),
        ),
        "filtered": (
            filtered,
            _leaves(q, k, v, gate, 0.01 * rate, slow),
            chunks * (4 * c * c * d + 10 * c * d * d),
        ),
    }
