"""Functions of rows in C against the same in torch: values, gradients, masks, what is left to torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nldsl.runtime import row_loops
from nldsl.runtime.gates import scaled, times_sigmoid, times_silu
from nldsl.runtime.native import compiler
from nldsl.runtime.ops import conv, l2norm, norm

pytestmark = pytest.mark.skipif(not compiler(), reason="needs a C compiler")
KINDS = [(torch.float64, 1e-12), (torch.float32, 3e-6)]


@pytest.fixture(autouse=True)
def small_calls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_loops, "LEAST", 1)


def both(
    function: Callable[..., Tensor], plain: Callable[..., Tensor], given: list[Tensor], most: float
) -> None:
    """Values and gradients of both, for a gradient from above that is a view."""
    results = []
    for form in (function, plain):
        leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in given]
        y = form(*leaves)
        torch.manual_seed(1)
        above = torch.randn(*y.shape[:-1], 2 * y.shape[-1], dtype=y.dtype)[..., ::2]
        results.append([y, *torch.autograd.grad(y, leaves, above)])
    for own, other in zip(*results, strict=True):
        assert (own - other).abs().max() <= most * other.abs().max()


def drawn(*shape: int, kind: torch.dtype) -> Tensor:
    return torch.randn(*shape, dtype=kind)


@pytest.mark.parametrize(("kind", "most"), KINDS)
@pytest.mark.parametrize("activation", ["", "silu"])
@pytest.mark.parametrize(
    ("batch", "tokens", "width", "window"),
    [(3, 9, 5, 4), (3, 2, 131, 4), (1, 300, 16, 2), (1, 9, 131, 4), (3, 1, 3, 8)],
)
def test_a_convolution(
    batch: int, tokens: int, width: int, window: int, activation: str, kind: torch.dtype, most: float
) -> None:
    torch.manual_seed(0)
    x = drawn(batch, tokens, width + 2, kind=kind)[..., :width]
    given = [
        x,
        drawn(batch, window - 1, width, kind=kind),
        # Weights may lie otherwise than row by row.
        drawn(window, width, kind=kind).mT,
        drawn(width, kind=kind),
    ]

    def ours(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y, after = conv(x, weight, bias, state={"tail": tail}, mask=None, activation=activation)
        return torch.cat([y, after["tail"]], 1)

    def plain(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        seen = torch.cat([tail, x], 1)
        y = F.conv1d(seen.mT, weight.unsqueeze(1), bias, groups=width).mT
        y = F.silu(y) if activation else y
        return torch.cat([y, seen[:, tokens:]], 1)

    both(ours, plain, given, most)


def test_a_convolution_over_tokens_that_are_left_out_and_without_a_bias() -> None:
    torch.manual_seed(0)
    x, tail, weight = (torch.randn(*s, dtype=torch.float64) for s in ((2, 7, 6), (2, 3, 6), (6, 4)))
    mask = torch.tensor([[True, False, True, True, False, True, True], [False] * 7])
    y, state = conv(x, weight, state={"tail": tail}, mask=mask, activation="silu")
    alone, after = conv(x[:1, mask[0]], weight, state={"tail": tail[:1]}, mask=None, activation="silu")
    none = conv(x, weight, torch.zeros(6).double(), state={"tail": tail}, mask=mask, activation="silu")[0]
    assert torch.equal(y, none)
    weight.requires_grad_()
    gradients = [
        torch.autograd.grad(conv(x, weight, b, state={"tail": tail}, mask=mask)[0].cos().sum(), weight)[0]
        for b in (None, torch.zeros(6).double())
    ]
    assert torch.equal(*gradients) and gradients[0].abs().max() > 0
    torch.testing.assert_close(y[:1, mask[0]], alone)
    torch.testing.assert_close(state["tail"][:1], after["tail"])
    torch.testing.assert_close(state["tail"][1], tail[1])


@pytest.mark.parametrize(("kind", "most"), KINDS)
@pytest.mark.parametrize("shape", [(3, 5, 2, 17), (4, 64), (2, 3, 2, 2, 8), (40,)])
def test_norms(shape: tuple[int, ...], kind: torch.dtype, most: float) -> None:
    torch.manual_seed(0)
    x, weight = drawn(*shape, kind=kind), drawn(shape[-1], kind=kind)
    both(lambda x: l2norm(x, eps=1e-6), lambda x: x / (x.square().sum(-1, True) + 1e-6).sqrt(), [x], most)
    both(
        lambda x, w: norm(x, w, eps=1e-6),
        lambda x, w: x / (x.square().mean(-1, True) + 1e-6).sqrt() * w,
        [x, weight],
        most,
    )


@pytest.mark.parametrize(("kind", "most"), KINDS)
def test_gates_and_rates(kind: torch.dtype, most: float) -> None:
    torch.manual_seed(0)
    a, b = drawn(2, 5, 3, 9, kind=kind), 4 * drawn(2, 3, 5, 9, kind=kind).transpose(1, 2)
    both(times_silu, lambda a, b: a * F.silu(b), [a, b], most)
    both(times_sigmoid, lambda a, b: a * torch.sigmoid(b), [a, b], most)
    for rates in (drawn(2, 5, 3, 1, kind=kind), drawn(3, 1, kind=kind), drawn(2, 1, 3, 1, kind=kind)):
        both(scaled, lambda r, x: r * x, [rates, a], most)


def test_gates_of_other_shapes_are_plain_products() -> None:
    x = torch.randn(4, 3)
    assert torch.equal(times_silu(2.0, x), 2.0 * F.silu(x))
    assert torch.equal(times_sigmoid(x[:, :1], x), x[:, :1] * torch.sigmoid(x))
    assert torch.equal(scaled(2.0, x), 2.0 * x)
    assert scaled(torch.ones(2, 4, 1), x).shape == (2, 4, 3)
    assert scaled(torch.ones(4, 3), x).shape == (4, 3)


def test_gates_far_from_zero_and_no_numbers() -> None:
    b = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4, float("nan")])
    for form, gate in ((times_silu, F.silu), (times_sigmoid, torch.sigmoid)):
        y = form(torch.ones(6), b)
        torch.testing.assert_close(y, gate(b), atol=1e-30, rtol=1e-6, equal_nan=True)


def test_gates_have_second_derivatives_norms_say_that_they_have_none() -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rates = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(times_silu, (a, b))
    assert torch.autograd.gradgradcheck(times_sigmoid, (a, b))
    assert torch.autograd.gradgradcheck(scaled, (rates, b))
    (slope,) = torch.autograd.grad(l2norm(a, eps=1e-6).sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="NL0977"):
        slope.sum().backward()


def test_traced_code_and_other_types_are_left_to_torch() -> None:
    x = torch.randn(4, 8)
    assert row_loops.ready(x) is not None
    assert row_loops.ready(x, x.double()) is None
    assert row_loops.ready(x.bfloat16()) is None
    assert row_loops.ready(x[:0]) is None
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda x: l2norm(x, eps=1e-6))(x)
    torch.testing.assert_close(graph(2 * x), l2norm(x, eps=0.0))
    exported = torch.export.export(Gate(), (x, x))
    torch.testing.assert_close(exported.module()(x, x), x * F.silu(x))
    eager = torch.compile(times_silu, backend="aot_eager")(x, x)
    torch.testing.assert_close(eager, x * F.silu(x))


class Gate(torch.nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return times_silu(a, b)


def test_threads_change_no_bit() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(40, 16, requires_grad=True), torch.randn(16, requires_grad=True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(torch.autograd.grad(norm(x, weight, eps=1e-6).square().sum(), (x, weight)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_gates_of_huge_numbers_are_those_of_torch(kind: torch.dtype) -> None:
    """Where `e^-x` overflows, a gate is closed: nothing is left of however large a number."""
    most = torch.finfo(kind).max
    edges = [float("inf"), -float("inf"), float("nan"), most, -most, -most / 1e8, -1000.0, -88.5, -87.0, 88.5]
    for ours, gate in ((times_silu, F.silu), (times_sigmoid, torch.sigmoid)):
        found = []
        for form in (ours, lambda a, b, gate=gate: a * gate(b)):
            a, b = torch.full((len(edges),), 3.0, dtype=kind), torch.tensor(edges, dtype=kind)
            given = [a.requires_grad_(), b.requires_grad_()]
            y = form(*given)
            found.append([y.detach(), *torch.autograd.grad(y.sum(), given)])
        for own, other in zip(*found, strict=True):
            torch.testing.assert_close(own, other, equal_nan=True, rtol=1e-6, atol=1e-30)


def test_numbers_whose_sign_is_only_noted_are_left_to_torch() -> None:
    x = torch._neg_view(torch.ones(2, 3))
    assert x.is_neg()
    assert x.is_contiguous()
    assert torch.equal(times_sigmoid(x, torch.zeros(2, 3)), torch.full((2, 3), -0.5))


def test_gates_have_derivatives_forward() -> None:
    """As the operations of torch have, whatever the size."""
    a, b, along = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(b, along)
        for ours, gate in ((times_silu, F.silu), (times_sigmoid, torch.sigmoid)):
            found = torch.autograd.forward_ad.unpack_dual(ours(a, dual)).tangent
            wanted = torch.autograd.forward_ad.unpack_dual(a * gate(dual)).tangent
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("shape", [(3, 5, 2, 17), (4, 64), (2, 3, 2, 2, 8), (40,)])
def test_rows_that_lie_side_by_side_are_those_of_a_wider_array(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    wide, above, weight = torch.randn(*shape, 2), torch.randn(*shape, 2), torch.randn(shape[-1])
    wide, above = (x.movedim(-1, -2).flatten(-2)[..., : shape[-1]] for x in (wide, above))
    found = []
    for x, dy in ((wide, above), (wide.contiguous(), above.contiguous())):
        leaves = [x.detach().requires_grad_(), weight.clone().requires_grad_()]
        y = norm(*leaves, eps=1e-6)
        unit = l2norm(leaves[0], eps=1e-6)
        found.append([y, unit, *torch.autograd.grad([y, unit], leaves, [dy, dy])])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_norm_of_few_numbers_is_a_loop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time and all rows at once give the same numbers, on both sides of what a call is worth."""
    monkeypatch.setattr(row_loops, "LEAST", 1 << 17)
    assert row_loops.ready(torch.ones(4096)) is None
    assert row_loops.ready(torch.ones(4096), least=4096) is not None
    assert row_loops.ready(torch.ones(4095), least=4096) is None
    torch.manual_seed(0)
    x, weight = torch.randn(4, 64, 64, dtype=torch.float64), torch.randn(64, dtype=torch.float64)
    both(
        lambda x, w: norm(x, w, eps=1e-6),
        lambda x, w: torch.cat([norm(row, w, eps=1e-6) for row in x.split(1, 1)], 1),
        [x, weight],
        1e-13,
    )
