"""Reads through a solve: `(H + ridge I)^-1 q` (MesaNet)."""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.runtime.triangular import HALVES


def ridge_solve(matrix: Tensor, q: Tensor, *, ridge: float, iterations: int) -> Tensor:
    """`(matrix + ridge I)^-1 q` for rows `q [..., C, d]` and `matrix [..., d, d]`.

    `iterations` steps of conjugate gradients from zero; with 0 the exact solution.

    >>> ridge_solve(torch.eye(2), torch.ones(1, 2), ridge=1.0, iterations=0)
    tensor([[0.5000, 0.5000]])
    """
    if iterations == 0:
        if matrix.dtype in HALVES:
            return ridge_solve(matrix.float(), q.float(), ridge=ridge, iterations=0).to(q.dtype)
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        exact: Tensor = torch.linalg.solve(matrix + ridge * eye, q.mT).mT
        return exact
    x, r, p = torch.zeros_like(q), q, q
    size = (r * r).sum(-1, keepdim=True)
    # Below the rounding of its type a residual is noise, whose quotients have no gradient: it stays.
    least = size.detach() * torch.finfo(size.dtype).eps ** 2
    for _ in range(iterations):
        image = p @ matrix.mT + ridge * p
        done = size <= least
        rate = size / (p * image).sum(-1, keepdim=True).masked_fill(done, 1.0)
        rate = rate.masked_fill(done, 0.0)
        x, r = x + rate * p, r - rate * image
        left = (r * r).sum(-1, keepdim=True)
        p = r + left / size.masked_fill(done, 1.0) * p
        size = left
    return x
