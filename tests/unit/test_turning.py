"""Rotary positions: complex numbers are the judge; pieces equal the whole to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.runtime import turning
from nldsl.runtime.native import compiler
from nldsl.runtime.sequence import rope, stretched_rope

STRETCH = {"factor": 4.0, "low": 1.0, "high": 4.0, "original": 64.0}


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_complex_numbers(x: Tensor, count: Tensor, base: float) -> Tensor:
    half = x.shape[-1] // 2
    places = (count.unsqueeze(1) + torch.arange(x.shape[1])).double()
    angle = places.unsqueeze(-1) * base ** (-torch.arange(half, dtype=torch.float64) / half)
    turn = torch.polar(torch.ones_like(angle), angle)
    turn = turn if x.dim() == 3 else turn.unsqueeze(2)
    y = torch.complex(x[..., :half], x[..., half:]) * turn
    return torch.cat([y.real, y.imag], -1)


@pytest.mark.parametrize("shape", [(3, 5, 8), (3, 7, 2, 6), (1, 4, 2), (0, 3, 4), (2, 0, 4)])
@pytest.mark.parametrize("base", [10.0, 10000.0])
def test_values_and_gradients(shape: tuple[int, ...], base: float) -> None:
    """Samples in step and apart, call after call: what is kept of the last is never the wrong one."""
    x, weight = drawn(*shape).requires_grad_(), drawn(*shape, seed=1)
    for count in (torch.full(shape[:1], 9), torch.full(shape[:1], 9), 3 * torch.arange(shape[0])):
        y, state = rope(x, base=base, state={"count": count}, mask=None)
        want = by_complex_numbers(x, count, base)
        torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
        assert torch.equal(state["count"], count + shape[1])
        found, grad = (torch.autograd.grad((z * weight).sum(), x)[0] for z in (y, want))
        torch.testing.assert_close(found, grad, rtol=1e-12, atol=1e-12)


def test_a_derivative_of_its_gradients() -> None:
    x = drawn(2, 3, 4).requires_grad_()
    turn = turning.angles(x, torch.arange(3).expand(2, 3), torch.tensor([1.0, 0.1], dtype=torch.float64))
    assert torch.autograd.gradgradcheck(lambda z: turning.turned(z**2, turn), (x,))


def test_forms_types_and_lengths_are_told_apart() -> None:
    state, options = {"count": torch.tensor([30, 30])}, {"mask": None, "base": 100.0}
    x = drawn(2, 6, 8)
    plain, _ = rope(x, state=state, **options)
    stretched, _ = stretched_rope(x, state=state, **STRETCH, **options)
    single, _ = rope(x.float(), state=state, **options)
    short, _ = rope(x[:, :2], state=state, **options)
    narrow, _ = rope(x[..., :4], state=state, **options)
    assert not torch.allclose(plain, stretched) and single.dtype == torch.float32
    torch.testing.assert_close(single.double(), plain, rtol=1e-5, atol=1e-6)
    assert torch.equal(short, plain[:, :2])
    torch.testing.assert_close(narrow, by_complex_numbers(x[..., :4], state["count"], 100.0))
    again, _ = stretched_rope(x, state=state, **STRETCH, **options)
    assert torch.equal(again, stretched)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_pieces_masks_and_traces_equal_the_whole_to_the_last_bit(dtype: torch.dtype) -> None:
    x, count = drawn(2, 13, 3, 10, dtype=dtype), torch.tensor([5, 8])
    whole, _ = rope(x, base=10.0, state={"count": count}, mask=None)
    state, pieces = {"count": count}, []
    for part in x.split([1, 5, 7], 1):
        y, state = rope(part, base=10.0, state=state, mask=None)
        pieces.append(y)
    assert torch.equal(torch.cat(pieces, 1), whole)
    masked, _ = rope(x, base=10.0, state={"count": count}, mask=torch.ones(2, 13, dtype=torch.bool))
    assert torch.equal(masked, whole)
    traced = torch.func.vmap(lambda z: rope(z, base=10.0, state={"count": count}, mask=None)[0])(x[None])
    assert torch.equal(traced[0], whole)


def test_what_inference_has_made_serves_training() -> None:
    x, state = drawn(2, 3, 4), {"count": torch.tensor([77, 77])}
    with torch.inference_mode():
        rope(x, base=50.0, state=state, mask=None)
    x.requires_grad_()
    y, _ = rope(x, base=50.0, state=state, mask=None)
    y.sum().backward()
    assert x.grad is not None


@pytest.mark.skipif(not compiler(), reason="needs a C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 70, 4, 16), (2, 33, 130), (5, 7, 3, 6), (1, 1, 2, 2)])
def test_the_loop_in_c_rounds_as_torch_does(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples in step and apart, rows that lie side by side and rows of a wider array, both ways."""
    wide = drawn(*shape[:-1], 2 * shape[-1], dtype=dtype)
    above = drawn(*shape[:-1], shape[-1] + 2, seed=1, dtype=dtype)
    for x in (wide[..., : shape[-1]], wide[..., ::2], wide[..., shape[-1] :].contiguous()):
        for count in (torch.arange(shape[0]), torch.full(shape[:1], 5))[: 1 + (shape[0] > 1)]:
            places = (count[:1] if len(set(count.tolist())) == 1 else count).unsqueeze(1)
            turn = turning.angles(x, places + torch.arange(shape[1]), drawn(shape[-1] // 2, seed=2))
            found, leaf = [], x.detach().requires_grad_()
            for least in (1, 1 << 40):
                monkeypatch.setattr(turning, "LEAST", least)
                assert (turning._loop(leaf, turn[0]) is None) == (least > 1 or x.stride(-1) > 1)
                y = turning.turned(leaf, turn)
                found.append((y, *torch.autograd.grad(y, leaf, above[..., 1:-1])))
            assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_angles_of_another_type_or_shape_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turning, "LEAST", 1)
    x, turn = drawn(2, 3, 4).float(), (torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    assert turning._loop(x, turn[0]) is None
    assert turning._loop(x, turn[0].expand(2, 3, 2).double()) is None
    assert turning._loop(x.bfloat16(), turn[0].expand(2, 3, 2).bfloat16()) is None
    assert torch.equal(turning.turned(x, turn), torch.cat([-x[..., 2:], x[..., :2]], -1))
    turn = turn[0].expand(1, 3, 2), turn[1].expand(1, 3, 2)
    noted = torch._neg_view(x)
    assert torch.equal(turning.turned(noted, turn), -turning.turned(x, turn))
