"""Second factors that several products take turned are turned once (`native/turned.py`)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.native.lanes import Lanes
from nldsl.runtime import native

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")


def twice(z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return z @ w.mT, (z + 1) @ w.mT


def turns(lanes: Lanes) -> int:
    """How many calls that turn a matrix stand in the function of the lane."""
    (made,) = lanes.known.values()
    assert made is not None
    return made.text.split("static void lane")[1].count("nl_transpose(")


def checked(lanes: Lanes, *given: Tensor) -> None:
    for _ in range(3):
        for y, wanted in zip(lanes(*given), lanes.function(*given), strict=True):
            torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1), (3, 4)])
def test_one_turn_for_two_products(shape: tuple[int, int]) -> None:
    lanes = Lanes(twice, axes=2)
    checked(lanes, *(torch.randn(*shape, 3, n, 7, dtype=torch.float64) for n in (5, 9)))
    assert turns(lanes) == 1


@pytest.mark.parametrize("rows", [1, 3])
def test_few_rows_take_it_as_it_lies(rows: int) -> None:
    lanes = Lanes(twice, axes=1)
    checked(lanes, torch.randn(2, rows, 7, dtype=torch.float64), torch.randn(2, 9, 7, dtype=torch.float64))
    assert turns(lanes) == 0


def test_what_one_product_takes_is_left_to_it() -> None:
    lanes = Lanes(lambda z, w: (z @ w.mT, z @ (w + 1).mT, (z + 1) @ w), axes=1)
    checked(lanes, torch.randn(2, 8, 8, dtype=torch.float64), torch.randn(2, 8, 8, dtype=torch.float64))
    assert turns(lanes) == 0


def test_matrices_that_memories_share_are_left_to_the_products() -> None:
    lanes = Lanes(twice, axes=1)
    checked(lanes, torch.randn(2, 3, 5, 7, dtype=torch.float64), torch.randn(2, 1, 9, 7, dtype=torch.float64))
    assert turns(lanes) == 0


def test_a_result_and_a_factor_in_one() -> None:
    lanes = Lanes(lambda z, w: ((y := torch.tanh(w)), z @ y.mT, (z @ y.mT + 1) @ y, (z * 2) @ y.mT), axes=1)
    checked(lanes, torch.randn(2, 6, 7, dtype=torch.float64), torch.randn(2, 9, 7, dtype=torch.float64))
    assert turns(lanes) == 1


def test_calls_of_other_layouts_in_turns() -> None:
    lanes = Lanes(twice, axes=1)
    z, w = torch.randn(4, 6, 7, dtype=torch.float64), torch.randn(4, 9, 7, dtype=torch.float64)
    given = [(z, w), (z[:2], w[:2]), (z[::2], w[:2]), (z, w[:1])]
    given += [(z.mT.contiguous().mT, w), (z.float(), w.float())]
    for _ in range(3):
        for one in given:
            for y, wanted in zip(lanes(*one), twice(*one), strict=True):
                assert y is not None
                torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-5)
    assert not lanes.reasons
