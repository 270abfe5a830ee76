"""What a function of lanes keeps for its way back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.native import sharing
from nldsl.native.lanes import Lanes
from nldsl.native.pairs import paired
from nldsl.runtime import native

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")


def ahead(x: Tensor, w: Tensor, none: Tensor | None) -> tuple[Tensor | None, ...]:
    scaled = 2 * x
    y = F.silu(scaled @ w)
    return (y @ w.mT).cumsum(-1), None, y.sum(-1, keepdim=True)


def behind(
    x: Tensor, w: Tensor, none: Tensor | None, also: Tensor | None, sums: Tensor, dy: Tensor
) -> tuple[Tensor | None, ...]:
    scaled = 2 * x
    z = scaled @ w
    y, d = F.silu(z), dy.flip(-1).cumsum(-1).flip(-1)
    d_y = d @ w
    s = torch.sigmoid(z)
    d_z = d_y * s * (1 + z * (1 - s))
    return 2 * d_z @ w.mT, scaled.mT @ d_z + d.mT @ y, None, sums * dy[..., :1]


def given(seed: int) -> list[Tensor | None]:
    torch.manual_seed(seed)
    x, w = torch.randn(3, 2, 5, 4, dtype=torch.float64), torch.randn(1, 2, 4, 6, dtype=torch.float64)
    return [x, w, None]


def test_the_way_back_finds_what_it_would_make_again() -> None:
    arguments = given(0)
    made = paired(ahead, behind, arguments, 2, 1)
    arguments = given(1)
    (y, none, sums), kept = made.forward(arguments)
    wanted = ahead(*arguments)  # type: ignore[arg-type]
    assert none is None
    torch.testing.assert_close([y, sums], [wanted[0], wanted[2]], rtol=1e-12, atol=1e-12)
    assert "nl_product(5, 6, 4" in made.ahead.text.split("static void lane")[1]
    # `scaled` is cheap and made again; the product is kept, and its sigmoid, which is dear.
    assert all(k.shape[-1] == 5 * 6 for k in kept)
    assert made.behind.text.count("nl_product(5, 6, 4") == 1
    dy = torch.randn_like(y) if y is not None else None
    flows = made.backward([*arguments, None, sums, dy], kept)
    lean = Lanes(behind, axes=2)(*arguments, None, sums, dy)
    for own, other in zip(flows, lean, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
    wrong = made.backward([*arguments, None, sums, dy], [k * 1.1 for k in kept])
    assert not torch.allclose(wrong[0], flows[0])  # type: ignore[arg-type]


def test_any_layout_of_gradients() -> None:
    arguments = given(0)
    made = paired(ahead, behind, arguments, 2, 1)
    (y, _, sums), kept = made.forward(arguments)
    assert y is not None
    dy = torch.randn_like(y)
    turned = dy.mT.contiguous().mT
    one, other = (made.backward([*arguments, None, sums, d], kept) for d in (dy, turned))
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)


def test_nothing_is_kept_where_nothing_is_dear() -> None:
    made = paired(lambda x: (x + 1,), lambda x, dy: (dy * (x + 1),), [torch.ones(2, 3)], 1, 1)
    assert made.forward([torch.ones(2, 3)])[1] == []


def test_equal_texts_of_different_operands_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_back(x: Tensor, w: Tensor, dy: Tensor) -> tuple[Tensor]:
        return (dy * (w @ x),)

    x, w = torch.randn(2, 3, 3), torch.randn(2, 3, 3)
    made = paired(lambda x, w: (x @ w + 1,), wrong_back, [x, w], 1, 1)
    (y,), kept = made.forward([x, w])
    assert y is not None
    assert kept == []
    (flow,) = made.backward([x, w, torch.ones_like(y)], kept)
    torch.testing.assert_close(flow, w @ x)
    # The same, if fingerprints forgot who the operands are.
    monkeypatch.setattr(sharing, "_told", lambda operation, found: (getattr(operation, "text", ""),))
    made = paired(lambda x, w: (x @ w + 1,), wrong_back, [x, w], 1, 1)
    (_,), kept = made.forward([x, w])
    (flow,) = made.backward([x, w, torch.ones_like(y)], kept)
    assert not torch.allclose(flow, w @ x)  # type: ignore[arg-type]
