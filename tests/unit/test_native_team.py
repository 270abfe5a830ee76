"""Threads that share one lane, against torch, and one thread alone to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from nldsl.native import kernels
from nldsl.native.lanes import Lanes
from nldsl.runtime import native
from nldsl.runtime.held_parts import Counts, Fading, Groups, Kind
from nldsl.runtime.held_walk import Steps

Function = Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]]

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
TYPES = {torch.float64: 1e-12, torch.float32: 2e-5}
SIZES = 101, 333, 250
"""Rows, columns and what is summed: each of them leaves a rest."""
FAULTS = {
    "columns of others": ("nl_product(M, (int)(to - from), K, A", "nl_product(M, (int)(to - from) - 1, K, A"),
    "rows of others": ("C + from * cm, cm,", "C, cm,"),
    "half a transpose": ("nl_transpose((int)(to - from), N,", "nl_transpose((int)(to - from) / 2, N,"),
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def long_lane(x: Tensor, w: Tensor, u: Tensor) -> Sequence[Tensor]:
    """Products that are shared by columns and by rows, of either layout; a loop, and sums of each kind."""
    y = torch.nn.functional.silu(x @ w)
    z = y @ w.mT + (y * y) @ w.mT
    wide = (x.mT @ y) * 0.5 + w
    square = (wide * w).sum((-1, -2), keepdim=True)
    return (
        y,
        z,
        wide,
        square,
        wide.abs().amax((-1, -2)),
        wide.sum(-1),
        wide.sum(-2),
        wide @ u[..., :40],
        x @ u.mT,
    )


def dots(x: Tensor, w: Tensor, u: Tensor) -> Sequence[Tensor]:
    """Sums over all places of what is long."""
    y = x @ w
    return y, (y * y).sum((-1, -2), keepdim=True), (y - 1).amax((-1, -2), keepdim=True), u * 2


def given(lanes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns, inner = SIZES
    g = torch.Generator().manual_seed(0)
    shapes = (lanes, rows, inner), (1, inner, columns), (lanes, columns, inner)
    x, w, u = (torch.randn(*shape, generator=g, dtype=dtype) for shape in shapes)
    return x, w / 15, u


def with_threads(compiled: Lanes, count: int, *arguments: Tensor) -> list[Tensor]:
    torch.set_num_threads(count)
    return [x.clone() for x in compiled(*arguments) if x is not None]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("function", "lanes"), [(long_lane, 1), (long_lane, 2), (dots, 1)])
def test_equals_torch_and_one_thread(function: Function, lanes: int, dtype: torch.dtype) -> None:
    compiled, arguments = Lanes(function), given(lanes, dtype)
    compiled(*arguments)
    assert compiled.compiled == 1, compiled.reasons
    alone = with_threads(compiled, 1, *arguments)
    for own, other in zip(alone, function(*(x.double() for x in arguments)), strict=True):
        bound = TYPES[dtype] * float(other.abs().max().clamp_min(1.0))
        torch.testing.assert_close(own.double(), other, rtol=0, atol=bound)
    for count in (2, 3, 5, 9):
        for own, other in zip(with_threads(compiled, count, *arguments), alone, strict=True):
            assert torch.equal(own, other), count


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_few_columns(columns: int) -> None:
    """They are copied to the room of the lane, which threads would write one over the other's."""
    g = torch.Generator().manual_seed(0)
    w, u = torch.randn(1, 1500, 1500, generator=g), torch.randn(1, 1500, columns, generator=g)
    compiled = Lanes(lambda w, u: (w @ u,))
    compiled(w, u)
    (alone,) = with_threads(compiled, 1, w, u)
    for count in (2, 3, 8) * 3:
        (found,) = with_threads(compiled, count, w, u)
        assert torch.equal(found, alone), count


def text_of(compiled: Lanes, *arguments: Tensor) -> str:
    form = compiled.form(arguments)
    assert form is not None
    return form.text.split("static void lane(")[1]


def test_what_is_long_is_shared() -> None:
    compiled, arguments = Lanes(long_lane), given(1, torch.float32)
    compiled(*arguments)
    text = text_of(compiled, *arguments)
    assert text.count("nl_product_shared(") >= 3
    assert "nl_transpose_shared(" in text
    assert "if (1 && 2 * lanes <= threads)" in text
    compiled = Lanes(dots)
    compiled(*arguments)
    assert "for (long part = 0; part < 5; part++)" in text_of(compiled, *arguments)


def test_what_is_short_is_not() -> None:
    x = torch.randn(2, 40, 40)
    compiled = Lanes(lambda x: ((x @ x).exp(), x * x.sum((-1, -2), keepdim=True)))
    compiled(x)
    text = text_of(compiled, x)
    assert "_shared(" not in text
    assert "omp parallel for num_threads(nl_team)" not in text
    assert "if (0 && 2 * lanes <= threads)" in text


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kernels.kernel_text()
    assert FAULTS[fault][0] in whole
    monkeypatch.setattr("nldsl.native.lanes.kernel_text", lambda: whole.replace(*FAULTS[fault]))
    compiled, arguments = Lanes(long_lane), given(1, torch.float64)
    torch.set_num_threads(1)
    compiled(*arguments)
    assert compiled.compiled == 1, compiled.reasons
    found = with_threads(compiled, 3, *arguments)
    pairs = zip(found, long_lane(*arguments), strict=True)
    assert any(float((a - b).abs().max()) > 1e-6 for a, b in pairs)


@pytest.mark.parametrize(
    ("lanes", "heads", "wanted"), [(1, 1, [1] * 5), (4, 1, [4, 1]), (4, 2, [2, 2, 1]), (4, 8, [1] * 5)]
)
def test_samples_of_few_heads_go_together(lanes: int, heads: int, wanted: list[int]) -> None:
    """Weights that fill the room go sample by sample, but for threads that would have no lane."""
    x, w = torch.zeros(5, 3, heads, 2), torch.zeros(5, heads, 2, 2)
    kind = Kind((None, None), Counts(1, 1, 0, 1, 0, 0, 0, 0), (), (), (False,) * 6)  # type: ignore[arg-type]
    groups: Groups = kind.groups([x, x, *Fading(*[None] * 6), w, w])
    assert [p.stop - p.start for p in groups.parts(1, lanes)] == wanted


def test_threads_are_asked_for_where_lanes_are_apart() -> None:
    torch.set_num_threads(3)
    apart = type("Apart", (Steps,), {"joined": False})()
    assert (Steps().beside(), apart.beside()) == (1, 3)
