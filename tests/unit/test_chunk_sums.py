"""Running sums inside of chunks, and chunks that no one anchor serves, in C: equal to torch's."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch import Tensor

from nldsl.runtime import chunk_sums, chunk_widths, native
from nldsl.runtime.gram import limit_of

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
Width = int | tuple[int, ...]
SHAPES: list[tuple[tuple[int, ...], Width]] = [
    ((2, 19, 3), (8, 4, 4, 3)),
    ((1, 37, 3), 8),
    ((3, 16, 2), 16),
    ((2, 5, 1), 7),
    ((3, 33, 2, 5), 4),
    ((1, 64, 3, 70), 32),
]
MOST = {torch.float64: 1e-13, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_sums, "LEAST", 1)


def one_by_one(log: Tensor, width: Width) -> Tensor:
    """Token by token."""
    rows, now = [], torch.zeros_like(log[:, 0])
    begins = range(0, log.shape[1], width) if isinstance(width, int) else [0, *accumulate(width)]
    for t in range(log.shape[1]):
        now = log[:, t] if t in begins else now + log[:, t]
        rows.append(now)
    return torch.stack(rows, 1)


def too_far(sums: Tensor, width: int) -> list[int]:
    """Number by number; what is no number fits nowhere."""
    found, limit = [], limit_of(sums.dtype)
    for n, chunk in enumerate(sums.split(width, 1)):
        middle = chunk[:, chunk.shape[1] // 2].unsqueeze(1)
        near = (middle.abs() <= limit).all() and ((chunk - middle).abs() <= limit).all()
        found += [] if near else [n]
    return found


@pytest.mark.parametrize("kind", MOST)
@pytest.mark.parametrize(("shape", "width"), SHAPES)
def test_sums_and_their_gradients(shape: tuple[int, ...], width: Width, kind: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    log = torch.randn(shape, generator=draw, dtype=kind).requires_grad_()
    # Not laid one behind the other, as parts of something are.
    flow = torch.randn(*shape[:-1], shape[-1] + 1, generator=draw, dtype=kind)[..., 1:]
    step = chunk_sums.step_for(log)
    assert step is not None
    made, wanted = chunk_sums.summed(step, log, width), one_by_one(log, width)
    assert type(made.grad_fn).__name__ == "_SumsBackward"
    torch.testing.assert_close(made, wanted, rtol=0, atol=MOST[kind] * 100)
    torch.testing.assert_close(
        *(torch.autograd.grad(y, log, flow)[0] for y in (made, wanted)), rtol=0, atol=MOST[kind] * 100
    )
    again = chunk_sums.summed(step, log.detach()[:, :, :1], width)
    torch.testing.assert_close(again, made.detach()[:, :, :1], rtol=0, atol=0)


@pytest.mark.parametrize("width", [3, (3, 4)])
def test_gradients_of_gradients(width: Width) -> None:
    log = torch.randn(2, 7, 2, dtype=torch.float64, requires_grad=True)
    step = chunk_sums.step_for(log)
    assert step is not None
    assert torch.autograd.gradgradcheck(lambda x: chunk_sums.summed(step, x, width).exp(), log)


def test_halves_of_steep_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same widths, sums and gradients as without C."""
    log, found = torch.full((2, 64, 3), -0.5), []
    log[1, 43:45] = -30.0
    for least in (1, 1 << 62):
        monkeypatch.setattr(chunk_sums, "LEAST", least)
        given = log.clone().requires_grad_()
        fitted = chunk_widths.fitting(given, 32)
        assert fitted is not None
        found.append((fitted[1], fitted[0], *torch.autograd.grad(fitted[0].square().sum(), given)))
    assert found[0][0] == found[1][0] == (32, 8, 8, 16)
    torch.testing.assert_close(found[0][1:], found[1][1:])


def test_what_is_only_marked_as_negative() -> None:
    log = torch.randn(1, 6, 2, dtype=torch.complex128).conj().imag
    assert log.is_neg()
    torch.testing.assert_close(chunk_widths.sums_of(log, 4), one_by_one(log.resolve_neg(), 4))


@pytest.mark.parametrize("kind", MOST)
@pytest.mark.parametrize("shape", [(1, 30, 3), (3, 30, 2, 70)])
def test_chunks_that_are_too_far(shape: tuple[int, ...], kind: torch.dtype) -> None:
    """One number of one sample and channel says so, wherever it is, in the last, shorter chunk too."""
    limit = limit_of(kind)
    for place in range(30):
        for value in (0.9, 1.1, -0.9, -1.1, torch.nan, torch.inf, -torch.inf):
            sums = torch.full(shape, 0.0, dtype=kind)
            sums[-1, place, ..., -1] = value * limit
            found = chunk_widths.steep_chunks(sums, 8)
            assert found == too_far(sums, 8) == ([] if abs(value) < 1 else [place // 8])
    assert chunk_widths.steep_chunks(torch.full(shape, 1.1 * limit, dtype=kind), 8) == [0, 1, 2, 3]


def test_faults_are_found() -> None:
    """A text that takes the first token for the middle one, or starts nowhere anew, is seen."""
    sums = torch.tensor([-50.0, -50.0, 50.0, 50.0]).view(1, 4, 1)
    for right, wrong in (("size / 2 * F", "0 * F"), ("double sum[WIDE] = {0};", "double sum[WIDE] = {1};")):
        step = native.compiled(chunk_sums.TEXT.replace(right, wrong), "float")
        assert step is not None
        flat = torch.tensor([-0.6, 0.0, 0.0, 0.6]).view(1, 4, 1) * limit_of(torch.float32)
        same = chunk_sums.far_chunks(step, flat, 4) == too_far(flat, 4)
        assert not (same and torch.equal(chunk_sums.summed(step, sums, 4), one_by_one(sums, 4)))
