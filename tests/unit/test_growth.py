"""Caches that grow in place: values and gradients of `torch.cat`, and no state that changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.runtime import attention
from nldsl.runtime.growth import Room, append


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("widths", [(3, 4, 4, 2), (4, 4), (1, 1, 1)])
def test_pieces_are_written_behind_one_another(widths: tuple[int, ...], pairs: int) -> None:
    room = Room(sum(widths))
    cache = wanted = drawn(2, 5, 3).requires_grad_()
    pieces = [drawn(2, width * pairs, 3, seed=n + 1).requires_grad_() for n, width in enumerate(widths)]
    shown, places = [], set()
    for width, piece in zip(widths, pieces, strict=True):
        with room.piece(width):
            cache = append(cache, piece)
        wanted = torch.cat([wanted, piece], 1)
        shown.append((cache, wanted))
        places.add(cache.data_ptr())
    assert len(places) == 1
    for found, expected in shown:
        assert torch.equal(found, expected)
    sources = pieces
    found = torch.autograd.grad(sum((c**2).sum() for c, _ in shown), sources)
    expected = torch.autograd.grad(sum((w**2).sum() for _, w in shown), sources)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_two_ways_on_from_one_state_do_not_meet() -> None:
    room = Room(12)
    with room.piece(4):
        start = append(drawn(1, 4, 2), drawn(1, 4, 2, seed=1))
    before = start.clone()
    left, right = drawn(1, 4, 2, seed=2), drawn(1, 4, 2, seed=3)
    with room.piece(4):
        one, other = append(start, left), append(start, right)
    assert torch.equal(one, torch.cat([before, left], 1))
    assert torch.equal(other, torch.cat([before, right], 1))
    assert torch.equal(start, before)


def test_without_a_call_nothing_is_shared() -> None:
    old = drawn(1, 4, 2)
    assert append(old, old).data_ptr() != append(old, old).data_ptr()


@pytest.mark.parametrize("carry", ["trunc", "exact"])
def test_learning_is_the_same_with_copies(carry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole model in two calls, the second from the state of the first, which does not change."""
    tokens = torch.randint(0, 11, (2, 41), generator=torch.Generator().manual_seed(0))

    def learnt() -> list[Tensor]:
        # Two calls of 20 and 21 tokens that count, in pieces of four.
        model = nldsl.compile("hope_attention", dim=8, depth=2, heads=2, chunks=[4, 8], vocab=11).double()
        model.carry = carry
        loss, state = model.learn(tokens[:, :21], backward=1.0)
        kept = [x.clone() for x in state.tensors().values()]
        again, after = model.learn(tokens[:, 21:], state, backward=1.0)
        assert all(map(torch.equal, kept, state.tensors().values()))
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return [loss, again, *after.tensors().values(), *gradients]

    appended, room = [], Room.append
    monkeypatch.setattr(Room, "append", lambda *given: appended.append(room(*given)) or appended[-1])
    grown = learnt()
    # Keys and values of a layer: memory in the second piece of the first call, the first of the second.
    # Under `exact` the attention in front of the first task memory sees the whole call at once.
    layers = {"trunc": 2, "exact": 1}[carry]
    assert len({x.data_ptr() for x in appended}) == 4 * layers
    assert len(appended) == 2 * layers * (4 + 5)
    monkeypatch.setattr(attention, "append", lambda old, new: torch.cat([old, new], 1))
    for mine, theirs in zip(grown, learnt(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
