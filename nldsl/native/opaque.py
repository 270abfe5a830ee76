"""What is one operation in a traced graph though torch computes it by many: kernels have a routine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from torch import Tensor

from nldsl.runtime import triangular

_LOCK = RLock()


@torch.library.custom_op("nldsl::unit_lower_inverse", mutates_args=())
def unit_lower_inverse(strict: Tensor) -> Tensor:
    """`(I + N)^-1` for the strictly lower part of `N`, `[..., C, C]`."""
    eye = torch.eye(strict.shape[-1], dtype=strict.dtype, device=strict.device)
    unit = strict.tril(-1) + eye
    solved: Tensor = torch.linalg.solve_triangular(unit, eye.expand_as(strict), upper=False)
    return solved.contiguous()


@unit_lower_inverse.register_fake
def _(strict: Tensor) -> Tensor:
    return torch.empty_like(strict, memory_format=torch.contiguous_format)


@contextmanager
def opaque_routines() -> Iterator[None]:
    """While a function is traced."""
    with _LOCK:
        triangular.INSTEAD.append(unit_lower_inverse)
        try:
            yield
        finally:
            triangular.INSTEAD.pop()
