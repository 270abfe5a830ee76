"""Perceptrons of task memories as one loop in C: values, gradients and kept rows as torch has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime import kept_layers, native
from nldsl.runtime.kept_layers import silu_perceptron
from nldsl.runtime.kept_rows import Rows, laid

in_c = pytest.mark.skipif(not native.compiler(), reason="no C compiler")
SIZES = [(2, 17, 5, 7, 5), (3, 64, 33, 70, 33), (1, 150, 64, 129, 64), (2, 31, 3, 1, 3), (4, 16, 32, 96, 32)]
SIZES += [(2, 1, 9, 200, 9), (1, 80, 48, 40, 48), (3, 5, 96, 129, 96)]
"""Samples, rows, and the sides of the weights: whole tiles and what is left of them."""
Form = Callable[..., Tensor]


@pytest.fixture(params=[1, 2])
def everything_in_c(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kept_layers, "LEAST", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_torch(x: Tensor, V: Tensor, W: Tensor, scale: Tensor | None, eps: float, residual: bool) -> Tensor:
    """The oracle: one operation after the other."""
    z = x if scale is None else x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * scale
    y = F.silu(torch.einsum("bri,bhi->brh", z, V.expand(len(x), *V.shape[-2:])))
    y = torch.einsum("brh,boh->bro", y, W.expand(len(x), *W.shape[-2:]))
    return x + y if residual else y


class Case:
    """Weights whose rows are kept, and the oracle's own copies."""

    def __init__(
        self, size: tuple[int, ...], dtype: torch.dtype, same: bool, normed: bool, turned: bool
    ) -> None:
        samples, count, width, hidden, out = size
        self.x = drawn(samples, count, width, seed=1, dtype=dtype)
        starts = [drawn(hidden, width, seed=2, dtype=dtype), drawn(out, hidden, seed=3, dtype=dtype)]
        if not same:
            starts = [s + 0.3 * drawn(samples, *s.shape, seed=4, dtype=dtype) for s in starts]
        values = [s.expand(samples, *s.shape[-2:]).clone() for s in starts]
        self.oracle = [v.clone().requires_grad_() for v in values]
        if turned:
            values = [v.mT.contiguous().mT for v in values]
            starts = [s.mT.contiguous().mT for s in starts]
        self.rows = [
            Rows(v.requires_grad_(), s if same else None) for v, s in zip(values, starts, strict=True)
        ]
        self.scale = drawn(width, seed=5, dtype=dtype) if normed else None

    def weights(self) -> list[Tensor]:
        return [rows.weight() for rows in self.rows]

    def arguments(self) -> tuple[Tensor, Tensor | None]:
        """Variables of one use."""
        scale = None if self.scale is None else self.scale.clone().requires_grad_()
        return self.x.clone().requires_grad_(), scale


def near(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 2e-4, "atol": 2e-4} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-11}


@in_c
@pytest.mark.usefixtures("everything_in_c")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("same", "normed", "residual", "turned"), [
    (False, True, True, True), (True, True, True, False), (False, False, True, False),
    (True, True, False, True), (False, False, False, True),
])  # fmt: skip
def test_both_ways(
    size: tuple[int, ...], dtype: torch.dtype, same: bool, normed: bool, residual: bool, turned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One weight for all samples or one for each, as it lies or turned, with norm and residual or without."""
    case = Case(size, dtype, same, normed, turned)
    g = drawn(*size[:2], size[-1], seed=6, dtype=dtype)
    (x, scale), (mine, mine_scale) = case.arguments(), case.arguments()
    wanted = by_torch(x, *case.oracle, scale, 1e-3, residual)
    wanted.backward(g)
    with monkeypatch.context() as only_c:
        only_c.setattr(F, "silu", None)  # whoever asks torch fails
        y = silu_perceptron(mine, *case.weights(), scale=mine_scale, eps=1e-3, residual=residual)
        y.backward(g)
    torch.testing.assert_close(y, wanted, **near(dtype))
    torch.testing.assert_close(mine.grad, x.grad, **near(dtype))
    if mine_scale is not None and scale is not None:
        torch.testing.assert_close(mine_scale.grad, scale.grad, **near(dtype))
    for rows, oracle in zip(case.rows, case.oracle, strict=True):
        assert not any(kept.requires_grad for pair in rows.kept for kept in pair)
        torch.testing.assert_close(rows.take(), oracle.grad, **near(dtype))


@in_c
@pytest.mark.usefixtures("everything_in_c")
def test_the_last_pass_is_for_the_parameter() -> None:
    """The graph may be gone back again; what is not gathered any more is summed over the samples."""
    case = Case((3, 20, 6, 10, 6), torch.float64, False, True, False)
    (x, scale), (mine, mine_scale) = case.arguments(), case.arguments()
    by_torch(x, *case.oracle, scale, 0.1, True).square().sum().backward()
    loss = silu_perceptron(mine, *case.weights(), scale=mine_scale, eps=0.1, residual=True).square().sum()
    loss.backward(retain_graph=True)
    for rows in case.rows:
        assert rows.asked is None
        rows.gathering = False
    loss.backward()
    for rows, oracle in zip(case.rows, case.oracle, strict=True):
        torch.testing.assert_close(rows.take(), oracle.grad)
        assert rows.asked is not None and oracle.grad is not None
        torch.testing.assert_close(rows.asked, oracle.grad.sum(0))
    assert mine.grad is not None and x.grad is not None
    torch.testing.assert_close(mine.grad, 2 * x.grad)


@in_c
@pytest.mark.usefixtures("everything_in_c")
def test_a_token_is_the_same_among_others() -> None:
    """No sample and no token changes another one, not in the last bit; threads change nothing."""
    case = Case((3, 70, 24, 96, 24), torch.float32, False, True, False)
    other = case.x.clone()
    other[1, 7] += 1.0
    one, two = (
        silu_perceptron(x, *case.weights(), scale=case.scale, eps=1e-6, residual=True)
        for x in (case.x, other)
    )
    assert (one != two).any(-1).nonzero().tolist() == [[1, 7]]
    found = []
    for threads in (1, 8):
        torch.set_num_threads(threads)
        x, scale = case.arguments()
        silu_perceptron(x, *case.weights(), scale=scale, eps=1e-6).backward(other)
        assert x.grad is not None and scale is not None and scale.grad is not None
        found.append((x.grad, scale.grad))
    assert all(torch.equal(*grads) for grads in zip(*found, strict=True))


@pytest.mark.parametrize("compiler", [True, False])
def test_what_c_does_not_take_goes_to_torch(compiler: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters, heads, half precision, few rows; and all of it without a compiler."""
    monkeypatch.setattr(kept_layers, "LEAST", 0)
    if not compiler:
        monkeypatch.setattr(kept_layers, "loop", lambda *_: None)
    else:
        monkeypatch.setattr(kept_layers, "call", None)
    plain = [drawn(8, 4, seed=1), drawn(4, 8, seed=2)]
    x, scale = drawn(2, 5, 4), drawn(4, seed=3)
    wanted = by_torch(x, *(p.expand(2, -1, -1) for p in plain), scale, 0.1, True)
    torch.testing.assert_close(silu_perceptron(x, *plain, scale=scale, eps=0.1, residual=True), wanted)
    heads = [Rows(laid(p.expand(2, 3, -1, -1)).copy_(p).requires_grad_(), p) for p in plain]
    y = silu_perceptron(x.unsqueeze(1).expand(-1, 3, -1, -1), *(r.weight() for r in heads))
    torch.testing.assert_close(y[:, 2], by_torch(x, *plain, None, 0.0, False))
    kept = [Rows(p.expand(2, -1, -1).clone().requires_grad_(), None) for p in plain]
    if compiler:
        halves = [Rows(rows.leaf.detach().float().requires_grad_(), None) for rows in kept]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = silu_perceptron(x.float(), *(r.weight() for r in halves))
        assert y.dtype == torch.bfloat16
    else:
        y = silu_perceptron(x, *(r.weight() for r in kept), scale=scale, eps=0.1, residual=True)
        torch.testing.assert_close(y, wanted)
        y.sum().backward()
        assert all(rows.kept for rows in kept)
