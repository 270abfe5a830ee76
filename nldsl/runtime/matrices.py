"""Products and functions of matrices, with any axes in front."""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.runtime.triangular import HALVES


def matvec(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` for a matrix `[..., o, i]` and a vector `[..., i]`.

    >>> matvec(torch.tensor([[1.0, 2.0]]), torch.tensor([3.0, 4.0]))
    tensor([11.])
    """
    return (a @ b.unsqueeze(-1)).squeeze(-1)


def vecmat(a: Tensor, b: Tensor) -> Tensor:
    """`a^T @ b` for a vector `[..., o]` and a matrix `[..., o, i]`."""
    return (a.unsqueeze(-2) @ b).squeeze(-2)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices."""
    return a @ b


def headwise(a: Tensor, z: Tensor) -> Tensor:
    """One matrix `[..., o, i]` for every head of `[..., H, i]`.

    >>> headwise(torch.tensor([[1.0, 2.0]]), torch.eye(2))
    tensor([[1.],
            [2.]])
    """
    return z @ a.mT


def transpose(x: Tensor) -> Tensor:
    """The last two axes exchanged."""
    return x.mT


def outer(a: Tensor, b: Tensor) -> Tensor:
    """`a b^T`.

    >>> outer(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    return a.unsqueeze(-1) * b.unsqueeze(-2)


def identity(*, size: int, like: Tensor) -> Tensor:
    """The identity matrix, of the type and on the device of `like`."""
    return torch.eye(size, dtype=like.dtype, device=like.device)


def orthogonalize(x: Tensor, *, iterations: int) -> Tensor:
    """The nearest orthogonal matrix, roughly: the tuned quintic Newton-Schulz iteration of Muon.

    `X_0 = x / ||x||_F`, `X <- a X + (b A + c A^2) X` with `A = X X^T` and
    `(a, b, c) = (3.4445, -4.7750, 2.0315)`.

    >>> orthogonalize(2.0 * torch.eye(2), iterations=5).diagonal().sub(1).abs().max() < 0.35
    tensor(True)
    """
    tall = x.shape[-2] > x.shape[-1]
    y = x.mT if tall else x
    y = y / y.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(iterations):
        gram = y @ y.mT
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ y
    result: Tensor = y.mT if tall else y
    return result


def rownorm(x: Tensor, *, eps: float) -> Tensor:
    """Rows of unit length: `x / sqrt(sum(x^2) + eps)` for every row."""
    lengths: Tensor = torch.linalg.vecdot(x, x).unsqueeze(-1)
    return x * torch.rsqrt(lengths + eps)


def unbias(m: Tensor, beta: Tensor | float, step: Tensor | float) -> Tensor:
    """`m / (1 - beta^step)`: an average that started at zero, corrected (Adam).

    >>> unbias(torch.tensor(0.1), 0.9, 1)
    tensor(1.)
    """
    if m.dtype in HALVES:
        # Half a type rounds 0.999 to one, and the correction to a division by zero.
        beta, step = (x.float() if isinstance(x, Tensor) else x for x in (beta, step))
        return unbias(m.float(), beta, step).to(m.dtype)
    corrected: Tensor = m / (1 - beta**step)
    return corrected


def inverse_root(x: Tensor, *, root: int, eps: float) -> Tensor:
    """`(x + eps I)^(-1/root)` of a symmetric `x`, by its eigenvalues; those below zero count as zero.

    >>> inverse_root(4.0 * torch.eye(2), root=2, eps=0.0)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """
    if x.dtype in HALVES:
        return inverse_root(x.float(), root=root, eps=eps).to(x.dtype)
    values, vectors = _eigen((x + x.mT) / 2)
    powers = (values.clamp_min(0.0) + eps) ** (-1.0 / root)
    result: Tensor = (vectors * powers.unsqueeze(-2)) @ vectors.mT
    return result


def eigenbasis(x: Tensor) -> Tensor:
    """Eigenvectors of a symmetric `x` as columns, largest eigenvalue first, largest entry positive.

    >>> eigenbasis(torch.diag(torch.tensor([1.0, 3.0])))
    tensor([[0., 1.],
            [1., 0.]])
    """
    if x.dtype in HALVES:
        return eigenbasis(x.float()).to(x.dtype)
    if not x.numel():
        return x
    vectors = _eigen((x + x.mT) / 2)[1].flip(-1)
    largest = vectors.gather(-2, vectors.abs().argmax(-2, keepdim=True))
    result: Tensor = vectors * torch.where(largest < 0, -1.0, 1.0).to(x.dtype)
    return result


def _eigen(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors; NaN of what is not finite.

    In single precision LAPACK gives up where most rows are zero, as in the gradient of an embedding.
    """
    try:
        values, vectors = torch.linalg.eigh(x)
    except RuntimeError:  # `LinAlgError` is one
        if not bool(torch.isfinite(x).all()):
            return x[..., 0] * torch.nan, x * torch.nan
        if x.dtype == torch.float64:
            raise
        values, vectors = (found.to(x.dtype) for found in torch.linalg.eigh(x.double()))
    return values, vectors


def orthonormal(x: Tensor) -> Tensor:
    """The Q of `x = Q R` with a positive diagonal of R.

    >>> orthonormal(torch.tensor([[-2.0, 1.0], [0.0, 3.0]]))
    tensor([[-1.,  0.],
            [ 0.,  1.]])
    """
    if x.dtype in HALVES:
        return orthonormal(x.float()).to(x.dtype)
    q, r = torch.linalg.qr(x)
    signs = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(x.dtype)
    result: Tensor = q * signs.unsqueeze(-2)
    return result
