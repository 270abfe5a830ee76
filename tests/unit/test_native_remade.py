"""What lanes keep for the way back and what they make again."""

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.native.held import NativePass, quicken
from nldsl.native.remade import remade
from nldsl.runtime import native
from nldsl.runtime.activations import silu_pullback

SPEC = """
block b(x, heads = 2, chunk = 4) {
  level c every chunk tokens { memory M = mlp(2) per head(heads) }
  z = l2norm(split(x, heads))
  M[z] <- split(tanh(x), heads)  minimize l2  by momentum(lr = RATE, beta = 0.5)  retain 0.9  at commit
  return merge(M[z])
}
"""
X, W = torch.randn(3, 4), torch.randn(4, 4)


def test_chains_and_copies() -> None:
    def keeps(x: Tensor, W: Tensor) -> list[Tensor]:
        a = x @ W
        s = torch.sigmoid(a)
        return [s, a, a * s, (a * s) @ W, a.view(12).view(3, 4), a.sum(1), torch.nn.functional.silu(a) - s]

    made = remade(keeps, (X, W))
    assert sorted(made.recipes) == [0, 2, 6]
    whole = keeps(X, W)
    found = made.whole(made.without(whole))
    assert len(found) == len(whole)
    for a, b in zip(found, whole, strict=True):
        torch.testing.assert_close(a, b)


def test_products_of_lanes_have_views_between() -> None:
    """Of a memory with silu two arrays are kept beside its error, not four: torch's products end in views."""

    def keeps(x: Tensor, V: Tensor) -> list[Tensor]:
        a = x[None] @ V.mT[None]
        b = a @ V[None]
        return [a, torch.nn.functional.silu(a), b, silu_pullback(b, a)]

    made, whole = remade(keeps, (X, W)), keeps(X, W)
    assert sorted(made.recipes) == [1, 3]
    for a, b in zip(made.whole(made.without(whole)), whole, strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_kept_in_another_shape_is_not_it() -> None:
    def keeps(x: Tensor, W: Tensor) -> list[Tensor]:
        a = x @ W
        return [a.view(4, 3), torch.sigmoid(a), torch.tanh(a.view(4, 3))]

    made, whole = remade(keeps, (X, W)), keeps(X, W)
    assert 1 not in made.recipes
    for a, b in zip(made.whole(made.without(whole)), whole, strict=True):
        assert torch.equal(a, b)


def test_nothing_is_made_from_what_is_not_kept() -> None:
    def keeps(x: Tensor, W: Tensor) -> list[Tensor]:
        a = x @ W
        # Of another shape, from something that is gone, and from an argument.
        return [torch.sigmoid(a), a[:1] + a.sum(0, keepdim=True), x * 2.0]

    assert remade(keeps, (X, W)).recipes == {}


def test_what_asks_for_a_value_keeps_everything() -> None:
    def keeps(x: Tensor) -> list[Tensor]:
        return [x, x * 2.0] if float(x.sum()) > 0 else [x, x * 3.0]

    assert remade(keeps, (X,)).recipes == {}


def kept_of(rate: str) -> tuple[int, NativePass]:
    """How many numbers of a step a pass keeps for the way back."""
    layer = nldsl.compile(SPEC.replace("RATE", rate), block="b", x=16)
    found = quicken(layer.root, after=0)
    sizes: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        sizes.append(x)
        return x

    x = torch.randn(2, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y, _ = layer(x)
    y.sum().backward()
    return len(sizes), found


@pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
@pytest.mark.long
def test_sums_of_gradients_are_kept_where_the_rate_asks_for_them() -> None:
    (fixed, found), (learned, other) = kept_of("0.1"), kept_of("sigmoid(linear(x, heads))")
    assert not found.reasons
    assert not other.reasons
    assert found.count > 0
    # Four chunks of two weights.
    assert learned - fixed >= 8
