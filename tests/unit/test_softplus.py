"""`softplus` and its slope, written out: equal to the exponential form, whoever asks."""

from __future__ import annotations

import pytest
import torch

from nldsl.runtime.values import softplus


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients(kind: torch.dtype) -> None:
    x = torch.linspace(-40, 40, 161, dtype=kind).requires_grad_()
    y = softplus(x)
    assert type(y.grad_fn).__name__ == "_SoftplusBackward"
    exact = x.detach().double()
    most = 4 * torch.finfo(kind).eps
    torch.testing.assert_close(y.detach().double(), exact.exp().log1p(), rtol=most, atol=1e-30)
    slope = torch.autograd.grad(y.sum(), x)[0].double()
    torch.testing.assert_close(slope, exact.exp() / (1 + exact.exp()), rtol=8 * most, atol=1e-30)


def test_ends() -> None:
    x = torch.tensor([-torch.inf, torch.inf, torch.nan]).requires_grad_()
    y = softplus(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y.detach(), torch.tensor([0.0, torch.inf, torch.nan]), equal_nan=True)
    torch.testing.assert_close(slope, torch.tensor([0.0, 1.0, torch.nan]), equal_nan=True)


def test_gradients_of_gradients_and_batches_of_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(softplus, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(softplus, x)


def test_under_transforms_and_without_gradients_it_is_that_of_torch() -> None:
    x = torch.randn(4, dtype=torch.float64)
    assert softplus(x).grad_fn is None
    slope = torch.func.vmap(torch.func.grad(softplus))(x)
    torch.testing.assert_close(slope, torch.sigmoid(x))
    _, along = torch.func.jvp(softplus, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(along, torch.sigmoid(x))
