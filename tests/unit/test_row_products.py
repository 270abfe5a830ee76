"""Loops in C over rows and matrices: every size, type and number of threads as torch has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from nldsl.runtime import native, row_products
from nldsl.runtime.c_calls import loop
from nldsl.runtime.row_products import TEXT, descend, gathers, product

pytestmark = pytest.mark.skipif(not native.compiler(), reason="no C compiler")
SIZES = [(2, 17, 5, 7), (3, 64, 33, 70), (1, 100, 64, 129), (2, 31, 1, 1), (2, 33, 96, 64), (2, 1, 9, 200)]
SIZES += [(2, 16, 33, 70), (3, 5, 96, 129), (1, 8, 70, 96), (2, 13, 40, 1)]
"""Samples, rows, and the sides of matrices: whole tiles and what is left of them."""


@pytest.fixture(autouse=True, params=[1, 2])
def everything_in_c(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(row_products, "LEAST", 0)
    monkeypatch.setattr(row_products, "FEWEST", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_products(
    size: tuple[int, int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matrices as they lie and turned, one for all samples or one for each; rows that lie anyhow."""
    samples, count, short, long = size
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    x, m = drawn(samples, count, short, dtype=dtype), drawn(samples, short, long, seed=1, dtype=dtype)
    y = drawn(count, samples, long, seed=2, dtype=dtype).transpose(0, 1)
    cases = [(x, m), (x, m[0]), (y, m.mT), (y, m[0].mT)]
    wanted = [left @ right for left, right in cases]
    monkeypatch.setattr(Tensor, "__matmul__", None)  # whoever asks torch fails
    for (left, right), want in zip(cases, wanted, strict=True):
        torch.testing.assert_close(product(left, right), want, **near)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gathered", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_descent(size: tuple[int, int, int, int], gathered: bool, dtype: torch.dtype) -> None:
    """Rows in pieces: the gradient is kept, or weights move, in place or not, and samples are summed."""
    samples, count, short, long = size
    near = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    lengths = (count, 3, 1)
    rows = [
        (drawn(samples, n, short, seed=n, dtype=dtype), drawn(samples, n, long, seed=n + 1, dtype=dtype))
        for n in lengths
    ]
    old, start = (drawn(samples, short, long, seed=n, dtype=dtype) for n in (7, 8))
    before, total = (start if gathered else None), drawn(short, long, seed=9, dtype=dtype)
    assert gathers(old, rows)
    g = sum((p.mT @ q for p, q in rows), start if gathered else torch.zeros_like(start))
    kept, new, same, sum_ = torch.empty_like(old), torch.empty_like(old), old.clone(), total.clone()
    descend(rows, before, kept=kept)
    torch.testing.assert_close(kept, g, **near)
    descend(rows, before, step=(old, new, 0.3), total=sum_)
    torch.testing.assert_close(new, old - 0.3 * g, **near)
    torch.testing.assert_close(sum_, total + g.sum(0), **near)
    descend(rows, before, step=(same, same, 0.3))
    assert torch.equal(same, new)
    descend(rows, before, step=(old[0], new, 0.3))
    torch.testing.assert_close(new, old[0] - 0.3 * g, **near)
    if before is not None:
        descend(rows, before, kept=before)
        assert torch.equal(before, kept)


def test_a_row_is_the_same_among_others() -> None:
    """No sample and no token changes another one, not in the last bit."""
    x, m = drawn(3, 40, 64, dtype=torch.float32), drawn(3, 64, 96, seed=1, dtype=torch.float32)
    other = x.clone()
    other[1, 7] += 1.0
    changed = (product(x, m) != product(other, m)).any(-1).nonzero().tolist()
    assert changed == [[1, 7]]
    assert torch.equal(product(x, m[0])[:, :20], product(x[:, :20].contiguous(), m[0]))


def test_what_c_does_not_take_goes_to_torch() -> None:
    half, m = torch.ones(1, 2, 3, dtype=torch.bfloat16), torch.ones(3, 4)
    assert loop(TEXT, half) is None and not gathers(half, [(half, half)])
    assert product(half, m.bfloat16()).dtype == torch.bfloat16
    every_other = torch.ones(3, 8)[:, ::2]
    assert product(torch.ones(1, 2, 3), every_other).tolist() == [[[3.0] * 4] * 2]
