"""Backward passes are given numbers as they lie in memory: C reads them there."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from nldsl.runtime.first_order import first_order


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        dy = grads[0].contiguous()
        return torch.tensor(list((ctypes.c_double * dy.numel()).from_address(dy.data_ptr())))


def test_gradients_that_are_only_marked_as_negative() -> None:
    x = torch.arange(3.0, dtype=torch.float64).requires_grad_()
    (found,) = torch.autograd.grad(_Read.apply(x), x, torch._neg_view(x.detach()))  # type: ignore[no-untyped-call]
    assert found.tolist() == [0.0, -1.0, -2.0]
    y = torch.complex(x.detach(), _Read.apply(x))  # type: ignore[no-untyped-call]
    (found,) = torch.autograd.grad(y.conj().imag.sum(), x)
    assert found.tolist() == [-1.0] * 3
