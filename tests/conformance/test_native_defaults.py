"""Defaults of torch that a process may set around a module: they decide nothing about one that is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.native.store import LEAST, Store
from nldsl.runtime import native as runtime
from nldsl.runtime.model import Layer
from tests.conformance.test_native_switch import TEXTS, close, numbers, same


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(runtime, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


def on(layer: Layer, x: Tensor) -> list[Tensor]:
    y, state = layer(x)
    leaves = [x, *layer.parameters()]
    return [y, *state.tensors().values(), *torch.autograd.grad(y, leaves, torch.ones_like(y))]


@pytest.mark.skipif(not runtime.compiler(), reason="there is no C compiler")
@pytest.mark.parametrize("name", ["step", "filter", "matrix"])
def test_another_default_device(name: str) -> None:
    """Lanes that are compiled there, and those that were: memory of their own is where the numbers are."""
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layer = nldsl.compile(TEXTS[name], x=8)
    want = on(layer, x)
    report = nldsl.native(layer, at_once=True)
    torch.set_default_device("meta")
    on(layer, x)
    found = on(layer, x)
    assert report.running and not any(t.is_meta for t in found)
    close(found, want)
    assert Store().empty((LEAST, 1), torch.float32).is_cpu and Store().empty((1,), torch.float32).is_cpu


def test_a_module_begins_on_another_default_device() -> None:
    """As modules of torch do; what is loaded into it is what counts."""
    want = nldsl.compile(TEXTS["matrix"], x=8)
    with torch.device("meta"):
        made = nldsl.compile(TEXTS["matrix"], x=8)
    assert all(p.is_meta for p in made.parameters())
    made.to_empty(device="cpu").load_state_dict(want.state_dict())
    assert same(numbers(made), numbers(want))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_narrow_default_type_rounds_nothing(dtype: torch.dtype) -> None:
    want = nldsl.compile(TEXTS["matrix"], x=8, dtype=dtype)
    torch.set_default_dtype(torch.bfloat16)
    found = nldsl.compile(TEXTS["matrix"], x=8, dtype=dtype)
    assert all(map(torch.equal, found.parameters(), want.parameters()))
    assert next(nldsl.compile(TEXTS["matrix"], x=8).parameters()).dtype == torch.bfloat16


def test_traces_are_refused() -> None:
    """They would hold lengths and counts of one call for those of all."""
    layer = nldsl.compile(TEXTS["step"], x=8)
    with pytest.raises(RuntimeError, match="NL0978"):
        torch.jit.trace(layer, (torch.zeros(1, 4, 8),), check_trace=False)


def test_transforms_are_refused_by_name() -> None:
    layer, x = nldsl.compile(TEXTS["matrix"], x=8), torch.ones(1, 4, 8)
    weights = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(given: dict[str, Tensor], x: Tensor) -> Tensor:
        y, _ = torch.func.functional_call(layer, given, (x,))
        total: Tensor = y.square().sum()
        return total

    with pytest.raises(RuntimeError, match="NL0979"):
        torch.func.grad(loss)(weights, x)
    with pytest.raises(RuntimeError, match="NL0979"):
        torch.func.jvp(lambda z: layer(z)[0], (x,), (x,))
    leaves = [p.requires_grad_() for p in weights.values()]
    found = torch.autograd.grad(loss(weights, x), leaves)
    want = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    assert all(map(torch.equal, found, want))
