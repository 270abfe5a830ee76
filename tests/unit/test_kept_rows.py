"""Gradients gathered from kept rows are those of automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.runtime import kept_rows
from nldsl.runtime.kept_rows import ROWS, Rows


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("heads", [(), (2,)])
@pytest.mark.parametrize("lengths", [(5,), (3, 4, 1), (ROWS, 7), (ROWS - 1, 2, ROWS)])
@pytest.mark.parametrize("same", [True, False])
def test_products_of_many_segments(heads: tuple[int, ...], lengths: tuple[int, ...], same: bool) -> None:
    start = drawn(*heads, 4, 3)
    whole = start.expand(2, *start.shape) if same else drawn(2, *heads, 4, 3, seed=1)
    leaf, oracle = (whole.clone().requires_grad_() for _ in range(2))
    rows = Rows(leaf, start if same else None)
    for again in range(2):
        for n, length in enumerate(lengths):
            z = drawn(2, *heads, length, 3, seed=n + 2 + again)
            mine, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
            y, wanted = mine @ rows.weight().mT, theirs @ oracle.mT
            torch.testing.assert_close(y, wanted)
            (y**2).sum().backward()
            (wanted**2).sum().backward()
            torch.testing.assert_close(mine.grad, theirs.grad)
        torch.testing.assert_close(rows.take(), oracle.grad)
        oracle.grad = None
    assert rows.take() is None


def test_whatever_else_is_done_with_a_weight_counts_too() -> None:
    leaf, oracle = (drawn(2, 3, 3).requires_grad_() for _ in range(2))
    rows = Rows(leaf, None)
    z = drawn(2, 5, 3, seed=1)
    for weight in (rows.weight(), oracle):
        y = z @ weight.mT + torch.cat([weight, 2 * weight], 1).sum() + (weight.mT.mT * weight).sum()
        (y + torch.einsum("boi,bci->bco", weight, z) + (weight @ z.mT).mT).sin().sum().backward()
    torch.testing.assert_close(rows.take(), oracle.grad)


@pytest.mark.parametrize("heads", [(), (2,)])
def test_the_last_pass_is_for_the_parameter(heads: tuple[int, ...]) -> None:
    oracle = drawn(*heads, 4, 3).requires_grad_()
    delta, z = drawn(2, *heads, 4, 3, seed=1), drawn(2, *heads, 5, 3, seed=2)
    rows = Rows((oracle + delta).detach().requires_grad_(), None)
    loss = ((z @ rows.weight().mT) ** 2).sum()
    wanted = ((z @ (oracle + delta).mT) ** 2).sum()
    loss.backward(retain_graph=True)
    assert rows.asked is None
    rows.gathering = False
    loss.backward(retain_graph=True)
    loss.backward()
    wanted.backward()
    assert rows.asked is not None and oracle.grad is not None
    torch.testing.assert_close(rows.asked, 2 * oracle.grad)
    taken = rows.take()
    assert taken is not None
    torch.testing.assert_close(taken.sum(0), oracle.grad)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (5, 5), (1, 40)])
@pytest.mark.parametrize("lengths", [(5,), (ROWS, 7, 1), (ROWS - 1, 2, ROWS)])
@pytest.mark.parametrize("same", [True, False])
def test_descent_piece_by_piece(
    shape: tuple[int, int], lengths: tuple[int, ...], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of at most nine numbers: the weights behind a step, and the sum over the samples."""
    monkeypatch.setattr(kept_rows, "PIECE", 72)
    start = drawn(*shape)
    whole = start.expand(2, *shape) if same else drawn(2, *shape, seed=1)
    leaf, oracle = (whole.clone().requires_grad_() for _ in range(2))
    rows = Rows(leaf, start if same else None)
    for n, length in enumerate(lengths):
        z = drawn(2, length, shape[1], seed=n + 2)
        for weight in (rows.weight(), oracle):
            ((z @ weight.mT) ** 2).sum().backward()
    assert rows.descends and oracle.grad is not None
    total = drawn(*shape, seed=9)
    wanted, new = total + oracle.grad.sum(0), rows.values(anew=True)
    rows.descend(new, 0.3, total)
    torch.testing.assert_close(new, oracle.detach() - 0.3 * oracle.grad)
    torch.testing.assert_close(total, wanted)
    assert rows.take() is None


def test_products_under_autocast_go_the_plain_way() -> None:
    leaf = torch.ones(1, 2, 3, requires_grad=True)
    rows = Rows(leaf, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = torch.ones(1, 4, 3) @ rows.weight().mT
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert leaf.grad is not None and not rows.kept
