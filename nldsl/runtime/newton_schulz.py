"""The Newton-Schulz iteration of Muon for weights in training: small side, low precision where it is fast."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from nldsl.runtime.matrices import orthogonalize as exactly

LINEAR = -4.7750
SQUARE = 2.0315
"""Coefficients of the Gram matrix and of its square."""
STRIPS = 4
HALVED = 512
"""Rows of a symmetric product are taken in so many strips from this side on; below, calls cost too much."""


@cache
def fast_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are faster than in float32 on this kind of device."""
    if device != "cpu":
        return device == "cuda"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())


def orthogonalize(x: Tensor, *, iterations: int) -> Tensor:
    """The iteration of `matrices.orthogonalize`; a float32 matrix is iterated in bfloat16 where that is fast.

    The direction is what matters of a step: five steps of the quintic leave the singular values between 0.7
    and 1.2, far coarser than bfloat16.  Double precision stays what it is.

    >>> orthogonalize(2.0 * torch.eye(2, dtype=torch.float64), iterations=5).dtype
    torch.float64
    """
    if x.dtype != torch.float32 or not fast_bfloat16(x.device.type):
        return exactly(x, iterations=iterations)
    tall = x.shape[-2] > x.shape[-1]
    y = (x.mT if tall else x) / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    y = y.to(torch.bfloat16)
    side = y.shape[-2]
    halved = y.ndim == 2 and y.device.type == "cpu" and side >= HALVED and side % STRIPS == 0
    for _ in range(iterations):
        gram = _lower(y, y.mT) if halved else y @ y.mT
        polynomial = torch.baddbmm if gram.ndim == 3 else torch.addmm
        if halved:
            inner = _lower(gram, gram, added=gram)
        else:
            inner = polynomial(gram, gram, gram, beta=LINEAR, alpha=SQUARE)
        y = polynomial(y, inner, y, beta=3.4445)
    result: Tensor = (y.mT if tall else y).to(x.dtype)
    return result


def _lower(a: Tensor, b: Tensor, added: Tensor | None = None) -> Tensor:
    """`a b`, or `LINEAR added + SQUARE a b`, which is symmetric: five eighths of the products, a mirror."""
    side = a.shape[0]
    out, width = a.new_empty(side, side), side // STRIPS
    for start in range(0, side, width):
        stop = start + width
        rows, columns = a[start:stop], b[:, :stop]
        made = (
            rows @ columns
            if added is None
            else torch.addmm(added[start:stop, :stop], rows, columns, beta=LINEAR, alpha=SQUARE)
        )
        out[start:stop, :stop] = made
        out[:start, start:stop] = made[:, :start].mT
    return out
