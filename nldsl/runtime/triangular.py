"""The inverse of a unit lower triangular matrix, as a few matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order

BASE = 32
"""Diagonal blocks up to this size are inverted by substitution.

Measured on CPU at 64 x 64: blocks of 16 or 32 by substitution, joined by products, take half the
time of one substitution of size 64.  A Neumann product of the whole block is no faster and loses
all digits when keys repeat (error 7e-2 at `I + 1.9 tril(ones)` in float32, against 6e-7 here).
"""

HALVES = (torch.bfloat16, torch.float16)
"""Types that no library solves triangular systems in; float32 does it for them."""


INSTEAD: list[Callable[[Tensor], Tensor]] = []
"""What computes inverses while a function is traced that has a form of its own for them (`native.opaque`)."""


def unit_lower_inverse(strict: Tensor) -> Tensor:
    """Return `(I + N)^-1` for strictly lower triangular `N`, without recording gradients.

    `N = [[A, 0], [B, D]]` gives `[[A', 0], [-D' B A', D']]` with the inverses `A'`, `D'` of the
    diagonal blocks of `I + N`.  Shape `[X, C, C]`, any `C >= 0`; what is on or above the diagonal
    is ignored.

    >>> unit_lower_inverse(torch.tensor([[[0.0, 0.0], [3.0, 0.0]]]))
    tensor([[[ 1.,  0.],
             [-3.,  1.]]])
    """
    if INSTEAD:
        return INSTEAD[-1](strict)
    if strict.is_cuda:
        return by_doubling(strict)
    if strict.shape[-1] > BASE:
        return by_doubling(strict, BASE)
    return _substitute(strict).to(strict.dtype).contiguous()


def by_doubling(strict: Tensor, base: int = 1) -> Tensor:
    """`unit_lower_inverse` by joining diagonal blocks of `base`, `2 base`, ... rows, all of one size at once.

    On a GPU a batch of small substitutions waits for its rows one after the other: Gated DeltaNet with
    keys of 64 spent three quarters of its time in them (measured on an H200).

    >>> by_doubling(torch.tensor([[[0.0, 0.0], [3.0, 0.0]]]))
    tensor([[[ 1.,  0.],
             [-3.,  1.]]])
    """
    if strict.dtype in HALVES:
        return by_doubling(strict.float(), base).to(strict.dtype)
    batch, size = strict.shape[0], strict.shape[-1]
    whole = base << max(0, -(-size // base) - 1).bit_length()
    rest = whole - size
    padded = torch.nn.functional.pad(strict, (0, rest, 0, rest)) if rest else strict
    inverse, width = _diagonal(padded, base), base
    while width < whole:
        count = whole // (2 * width)
        blocks = padded.reshape(batch, count, 2 * width, count, 2 * width).diagonal(dim1=1, dim2=3)
        below = blocks[:, width:, :width].movedim(-1, 1)
        upper, lower = inverse[:, 0::2], inverse[:, 1::2]
        made = strict.new_zeros(batch, count, 2 * width, 2 * width)
        made[..., :width, :width], made[..., width:, width:] = upper, lower
        made[..., width:, :width] = -(lower @ (below @ upper))
        inverse, width = made, 2 * width
    return inverse[:, 0, :size, :size]


def _diagonal(strict: Tensor, base: int) -> Tensor:
    """The inverses of the blocks on the diagonal, `[X, n, base, base]`."""
    batch, count = strict.shape[0], strict.shape[-1] // base
    if base == 1:
        return strict.new_ones(batch, count, 1, 1)
    blocks = strict.reshape(batch, count, base, count, base).diagonal(dim1=1, dim2=3)
    made = _substitute(blocks.permute(0, 3, 1, 2).reshape(batch * count, base, base))
    return made.view(batch, count, base, base)


def _substitute(strict: Tensor) -> Tensor:
    # Nobody solves in half precision.
    wide = strict.float() if strict.dtype in HALVES else strict
    eye = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device).expand_as(wide)
    # From the right and transposed: the layout LAPACK works in, so nothing is copied.
    solved: Tensor = torch.linalg.solve_triangular(wide.mT, eye, upper=True, left=False, unitriangular=True)
    return solved.mT


def solve_unit_lower(system: Tensor, right: Tensor) -> Tensor:
    """`(I + tril(N, -1))^-1 right`; shapes `[..., C, C]` and `[..., C, n]`.

    >>> solve_unit_lower(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.ones(2, 1)).flatten().tolist()
    [1.0, -2.0]
    """
    if system.dtype in HALVES:
        return solve_unit_lower(system.float(), right.float()).to(right.dtype)
    solved: Tensor = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    return solved


def inverse_of_unit_lower(strict: Tensor) -> Tensor:
    """`(I + N)^-1` as `unit_lower_inverse`, with its gradient `dN = -tril(Y^T dY Y^T, -1)`."""
    made: Tensor = _Inverse.apply(strict)  # type: ignore[no-untyped-call]
    return made


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, strict: Tensor) -> Tensor:
        inverse = unit_lower_inverse(strict)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (inverse,) = ctx.saved_tensors
        flow = torch.bmm(torch.bmm(inverse.mT, grads[0]), inverse.mT)
        return flow.tril_(-1).neg_()
