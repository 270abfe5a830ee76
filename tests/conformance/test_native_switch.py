"""Native lanes are on for one model, and off again: torch's own bits come back."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.native import turn_on
from nldsl.runtime import native as runtime
from nldsl.runtime.block_recompute import recompute_blocks
from nldsl.runtime.model import Layer
from tests.conformance.test_native_passes import BLOCK, MOMENTUM
from tests.conformance.test_native_steps import PASS, SIMPLE

pytestmark = pytest.mark.skipif(not runtime.compiler(), reason="there is no C compiler")
OUTER = PASS + "block twice(x) { return passed(x) + passed(x) }"
DELTA = BLOCK.format(rule="gd(lr = rate)")
TEXTS = {
    "step": SIMPLE,
    "pass": PASS,
    "filter": BLOCK.format(rule=MOMENTUM),
    "matrix": DELTA,
    "two blocks": OUTER,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that takes less time."""
    monkeypatch.setattr(runtime, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])


def layer(name: str) -> Layer:
    block = {"two blocks": "twice"}.get(name)
    return nldsl.compile(TEXTS[name], x=8, **({"block": block} if block else {}))


def numbers(layer: Layer) -> list[Tensor]:
    """An output, the state, and gradients."""
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y, state = layer(x)
    total = y.square().sum()
    return [y, *state.tensors().values(), *torch.autograd.grad(total, [x, *layer.parameters()])]


def settled(layer: Layer) -> list[Tensor]:
    """Behind the first call of each form, whose results are torch's."""
    numbers(layer)
    return numbers(layer)


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(map(torch.equal, a, b))


def close(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", TEXTS)
def test_on_for_one_model_and_off_again(name: str) -> None:
    model = layer(name)
    other = copy.deepcopy(model)
    want = numbers(model)
    before = {id(m): dict(vars(m)) for m in model.root.modules()}
    report = nldsl.native(model, at_once=True)
    found = settled(model)
    assert report.running, str(report)
    assert not same(found, want), "nothing was computed otherwise"
    close(found, want)
    # The other model of the class has not become slower or other.
    count = report.running
    assert same(numbers(other), want)
    assert report.running == count
    twin = copy.deepcopy(model)
    off = nldsl.native(model, off=True)
    told = {(part.block, part.function) for part in report.parts}
    assert {(part.block, part.function) for part in off.parts} == told
    assert all(part.reason == turn_on.SWITCHED_OFF for part in off.parts)
    assert off.replaced == off.running == 0
    assert same(numbers(model), want)
    assert all(vars(m) == before[id(m)] for m in model.root.modules())
    # The copy is as the model was, with weights of its own.
    assert same(numbers(twin), found)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert same(numbers(twin), found)
    # What has been compiled is there when it is switched on again.
    assert nldsl.native(twin, at_once=True).running == count
    assert str(nldsl.native(model, off=True)).startswith("nothing")


def test_blocks_that_are_computed_again() -> None:
    """Before or behind the switch: the second pass is in lanes, too, and goes back to torch."""
    plain = layer("two blocks")
    recompute_blocks(plain.root)
    want = numbers(plain)
    for first in (True, False):
        model = layer("two blocks")
        if first:
            assert recompute_blocks(model.root)
        report = nldsl.native(model, at_once=True)
        if not first:
            assert recompute_blocks(model.root)
        found = settled(model)
        assert report.running and not same(found, want)
        close(found, want)
        nldsl.native(model, off=True)
        assert same(numbers(model), want)
        blocks = [m for m in model.root.modules() if type(m).__name__ == "Passed"]
        assert blocks and all(hasattr(m.forward, "again") for m in blocks)


def test_what_is_saved_is_loaded() -> None:
    model = layer("pass")
    nldsl.native(model, at_once=True)
    found, file = settled(model), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    close(numbers(torch.load(file, weights_only=False)), found)


def test_a_forward_pass_of_ones_own_is_left_alone() -> None:
    model = layer("pass")
    calls: list[int] = []
    plain: Any = model.root.forward
    model.root.forward = lambda *given: [calls.append(1), plain(*given)][1]
    report = nldsl.native(model, at_once=True)
    assert str(report) == "Passed.forward: torch, as its `forward` has been replaced"
    numbers(model)
    nldsl.native(model, off=True)
    numbers(model)
    assert len(calls) == 2


def test_several_kinds_of_passes_are_one_function() -> None:
    """A matrix written at every token beside a perceptron on a slow clock: one line, and one to take back."""
    text = (
        "block both(x) {\n level a every 1 token { memory S = matrix() init zero }\n"
        " level b every 4 tokens { memory M = mlp(2) }\n"
        " S[l2norm(x)] <- x  by gd(lr = 0.5)\n M[x] <- x  by gd(lr = 0.01)\n return S[x] + M[x]\n}\n"
    )
    model = nldsl.compile(text, x=8)
    report = nldsl.native(model, at_once=True)
    assert str(report) == "Both.forward: in lanes" and report.replaced == 1
    numbers(model)
    assert report.running > 1 and str(report) == "Both.forward: in lanes"
    assert str(nldsl.native(model, off=True)) == f"Both.forward: torch, as {turn_on.SWITCHED_OFF}"
    assert str(nldsl.native(model, off=True)) == "nothing to take back: no function was in lanes"


def test_inputs_and_gradients_that_are_only_marked_as_negative() -> None:
    """As behind `conj().imag`: their numbers in memory have the other sign."""
    text = (
        "block b(x) {\n  level c every 3 tokens { memory M = mlp(2) }\n"
        "  M[x] <- x minimize l2 by gd(lr = 0.2) at commit\n  return M[x]\n}\n"
    )
    model = nldsl.compile(text, x=4, dtype=torch.float64)
    drawn = torch.randn(2, 2, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def found(x: Tensor, dy: Tensor) -> list[Tensor]:
        x = x.requires_grad_()
        y, _ = model(x)
        return [y, *torch.autograd.grad(y, x, dy)]

    want = found(*drawn.neg().unbind())
    report = nldsl.native(model, at_once=True)
    settled = [found(*drawn.neg().unbind()) for _ in range(2)][-1]
    assert report.running
    close(settled, want)
    assert same(found(*torch._neg_view(drawn).unbind()), settled)
