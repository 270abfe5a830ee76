"""Where no gradient comes from the state behind a call, the last chunk's write is left out on the way back:
the gradients are those that come with a gradient of zero at the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.runtime import held_pass
from nldsl.runtime.held_walk import Back

TITANS = """
block titans(x, heads = 2, chunk = 4) {
  level context every chunk tokens { memory M = mlp(2) per head(heads) }
  q = l2norm(split(linear(x), heads))
  k = l2norm(split(linear(x), heads))
  M[k] <- split(linear(x), heads)  minimize l2  weighted sigmoid(linear(x, heads))
    by momentum(lr = 0.5, beta = sigmoid(linear(x, heads)))
    retain sigmoid(linear(x, heads, bias = true))  at commit
  return merge(M[q] * sigmoid(linear(x, heads)))
}
"""
TOKENWISE = TITANS.replace("  at commit", "").replace("weighted sigmoid(linear(x, heads))", "")
KINDS = {"at commit": TITANS, "at every token": TOKENWISE}


def gradients(layer: nldsl.Layer, x: Tensor, state: nldsl.State | None, asked: bool) -> Sequence[Tensor]:
    """Of everything, with zeros at the state if it is `asked`."""
    y, new = layer(x, state)
    loss = (y * torch.arange(y.numel()).view(y.shape).cos()).sum()
    if asked:
        loss = loss + 0.0 * sum(t.sum() for t in new.tensors().values() if t.is_floating_point())
    return torch.autograd.grad(loss, [x, *layer.parameters()], allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize(
    ("kind", "tokens", "lanes"),
    [
        ("at commit", 12, False),
        ("at commit", 4, False),
        ("at every token", 14, False),
        ("at every token", 12, False),
        ("at commit", 12, True),
        pytest.param("at every token", 14, True, marks=pytest.mark.long),
    ],
)
def test_gradients_are_those_of_zeros_at_the_state(
    kind: str, tokens: int, lanes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = nldsl.compile(KINDS[kind], block="titans", x=8).double()
    if lanes:
        nldsl.native(layer, at_once=True)
    left: list[int] = []
    plain = Back.last

    def last(back: Back) -> int:
        left.append(len(back.chunks) - plain(back))
        return len(back.chunks) - left[-1]

    monkeypatch.setattr(Back, "last", last)
    x = torch.randn(2, tokens, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x.requires_grad_()
    # From a state in the middle of a chunk the last chunk ends elsewhere.
    for state in (None, layer(x[:, :2])[1].detach()):
        for _ in range(3):
            left.clear()
            without = gradients(layer, x, state, asked=False)
            ends = (tokens + (2 if state is not None else 0)) % 4 == 0
            assert left == [1 if ends else 0], "the write of the last chunk, where it ends one"
            for a, b in zip(without, gradients(layer, x, state, asked=True), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
            assert left[1:] == [0]


def unwritten(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory that nobody has written has no numbers."""
    return torch.full(tuple(shape), torch.nan, dtype=dtype, device=device)


@pytest.mark.parametrize("first", [1, 2, 3])
def test_sums_that_waited_in_front_have_a_gradient_of_zero(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of one chunk that began in the call before: in two calls as in one."""
    monkeypatch.setattr(held_pass, "room_of", unwritten)
    layer, found = nldsl.compile(TITANS, block="titans", x=8).double(), []
    x = torch.randn(2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x.requires_grad_()
    for cut in (0, first):
        y, state = layer(x[:, :cut])
        z, _ = layer(x[:, cut:], state)
        rows = torch.cat([y, z], 1)[:, first:]
        loss = (rows * torch.arange(rows.numel()).view(rows.shape).cos()).sum()
        asked = [x, *layer.parameters()]
        found.append(torch.autograd.grad(loss, asked, allow_unused=True, materialize_grads=True))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
