"""Chunk steps in compiled lanes against torch's form of them and against the interpreter."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import nldsl
from nldsl.certify.compare import LeftOutError
from nldsl.certify.graphs import in_lanes
from nldsl.native import Report, pairs, steps, turn_on
from nldsl.native import lanes as lanes_of
from nldsl.native.graph import UnsupportedError
from nldsl.native.places import Place
from nldsl.native.step_form import StepForm
from nldsl.native.steps import NativeStep
from nldsl.runtime import native as runtime
from nldsl.runtime.model import Layer
from nldsl.runtime.native import compiler
from tests.conformance.agreement import disagreements
from tests.conformance.test_written_back import CHUNK, MASK, apart, flows

pytestmark = pytest.mark.skipif(not compiler(), reason="there is no C compiler")
torch.set_num_threads(1)

HEADLESS = """
block headless(x, chunk = 4) {
  level slow every chunk tokens { memory A, B = matrix() init learned }
  k = l2norm(A[x])
  A[k] <- B[x]  minimize l2  by dgd(lr = 0.1)  retain 0.9
  B[k] <- A[k]  minimize dot  by dgd(lr = 0.1 * sigmoid(sum(k)))  retain 0.8 toward init
  return A[k] + B[x]
}
"""
"""Small, and quick to compile."""
SIMPLE = """
block simple(x, heads = 2, chunk = 4) {
  level slow every chunk tokens { memory A = matrix() per head init learned }
  z = split(x, heads)
  k = l2norm(A[z])
  a = sigmoid(readout(A[z], start = 2))
  A[k] <- z  minimize l2  by dgd(lr = 0.1 * sigmoid(sum(k)))  retain a toward init
  return merge(A[k])
}
"""
"""The same with heads, and parameters of the step."""
PASS = """
map tilted(z) {
  W = weight(dim(z), dim(z))
  return tanh(W @ z)
}
block passed(x, chunk = 4) {
  level slow every chunk tokens { memory A = tilted() }
  A[l2norm(x)] <- x  minimize l2  by gd(lr = 0.1)  retain 0.9
  return A[x]
}
"""
MIXED = """
block mixed(x, heads = 2, chunk = 4) {
  level slow every chunk tokens { memory A = matrix() per head init learned }
  z = split(x, heads)
  k = split(l2norm(merge(A[z])), heads)
  A[k] <- z  minimize l2  by dgd(lr = 0.1)
  return merge(A[k])
}
"""
"""Heads that are mixed inside of a step, which no shape shows: a lane is a sample."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that takes less time."""
    monkeypatch.setattr(runtime, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])


@cache
def made(text: str, dtype: torch.dtype) -> Layer:
    """One layer per text: what is compiled of its class stays."""
    return nldsl.compile(text, x=8, dtype=dtype)


def pair(text: str, dtype: torch.dtype = torch.float64, fresh: bool = False) -> tuple[Layer, Layer, Report]:
    """A layer, the same in lanes, and what was replaced; `fresh`: nothing is compiled yet."""
    plain = nldsl.compile(text, x=8, dtype=dtype) if fresh else copy.deepcopy(made(text, dtype))
    other = copy.deepcopy(plain)
    return plain, other, nldsl.native(other, at_once=True)


def step(layer: Layer) -> NativeStep:
    return next(v for v in vars(layer.root).values() if isinstance(v, NativeStep))


def axes(layer: Layer) -> set[int]:
    """In how many axes of lanes its step runs."""
    return {form.axes for form in step(layer).forms._forms.values()}


@pytest.mark.parametrize("text", [HEADLESS, SIMPLE, MIXED])
def test_equals_torch(text: str) -> None:
    plain, native, report = pair(text)
    assert apart(flows(native, 2 * CHUNK), flows(plain, 2 * CHUNK)) < 1e-10
    assert report.running >= 1
    assert str(report).endswith(": in lanes")
    assert max(form.axes for form in step(native).forms._ready.values()) == (2 if text == SIMPLE else 1)


def test_in_single_precision() -> None:
    plain, native, report = pair(SIMPLE, torch.float32)
    assert apart(flows(native, 2 * CHUNK), flows(plain, 2 * CHUNK)) < 1e-4
    assert report.running == 1, str(report)


def test_masks_and_pieces() -> None:
    """Odd lengths, samples at different counts, calls that end inside of a chunk."""
    plain, native, report = pair(SIMPLE)
    tokens, mask = 2 * CHUNK + 3, MASK[:, : 2 * CHUNK + 3]
    for given in ((tokens, mask), (tokens, mask, (CHUNK + 1, CHUNK + 2))):
        assert apart(flows(native, *given), flows(plain, *given)) < 1e-10
    assert report.running >= 3
    assert not step(native).forms.reasons, str(report)


@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_interpreter(batch: int) -> None:
    native = compiled_like(SIMPLE)
    assert disagreements(native, tokens=2 * CHUNK + 3, batch=batch) == []
    assert step(native).forms.count >= 2


def compiled_like(text: str) -> Layer:
    """In lanes, its parameters away from their first values."""
    _, native, _ = pair(text)
    for path, parameter in sorted(native.parameter_paths().items()):
        draw = torch.Generator().manual_seed(sum(path.encode()))
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return native


def test_weights_are_those_of_now() -> None:
    """Parameters are arguments of what is compiled, and so are the tensors that stand for them in a call."""
    plain, native, _ = pair(SIMPLE)
    flows(native, CHUNK)
    for layer in (plain, native):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(1.25)
    assert apart(flows(native, CHUNK), flows(plain, CHUNK)) < 1e-10
    x = torch.randn(2, 2 * CHUNK, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other = {n: (0.5 * p).detach().requires_grad_() for n, p in plain.named_parameters()}
    found = []
    for layer in (plain, native):
        y, _ = torch.func.functional_call(layer, other, (x,))
        found.append([y, *torch.autograd.grad(y.square().sum(), list(other.values()))])
    assert apart(*found) < 1e-10


# --- what torch keeps ----------------------------------------------------------------------------


def test_without_gradients_nothing_of_the_way_back_is_compiled() -> None:
    plain, native, _ = pair(SIMPLE, fresh=True)
    x = torch.randn(2, CHUNK, 8, dtype=torch.float64)
    with torch.no_grad():
        assert apart([native(x)[0]], [plain(x)[0]]) < 1e-10
    (form,) = step(native).forms._forms.values()
    assert (form.ahead.compiled, form.behind.compiled) == (1, 0)


def test_half_precision_stays_with_torch() -> None:
    plain, native, report = pair(SIMPLE, torch.float32, fresh=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert apart(flows(native, CHUNK), flows(plain, CHUNK)) == 0.0
    for layer in (plain, native):
        layer.to(torch.bfloat16)
    x = torch.randn(2, CHUNK, 8, dtype=torch.bfloat16)
    assert torch.equal(native(x)[0], plain(x)[0])
    assert report.running == 0


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_on, "compiler", lambda: "")
    plain, native, report = pair(SIMPLE, fresh=True)
    assert report.replaced == 0
    assert "torch, as there is no C compiler" in str(report)
    assert apart(flows(native, CHUNK), flows(plain, CHUNK)) == 0.0


def test_what_has_no_form_stays_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise UnsupportedError("the operation aten.none")

    monkeypatch.setattr(lanes_of, "traced", refused)
    plain, native, report = pair(SIMPLE, fresh=True)
    assert apart(flows(native, CHUNK), flows(plain, CHUNK)) < 1e-12
    assert str(report).endswith("in lanes, but where the operation aten.none: there torch")
    assert report.running == 0


def test_second_derivatives_are_refused() -> None:
    plain, native, _ = pair(SIMPLE)
    x = torch.randn(3, CHUNK, 8, dtype=torch.float64, requires_grad=True)
    total = native(x)[0].square().sum()
    (slope,) = torch.autograd.grad(total, x, create_graph=True)
    assert apart([slope], list(torch.autograd.grad(plain(x)[0].square().sum(), x))) < 1e-10
    with pytest.raises(RuntimeError, match="NL0977"):
        torch.autograd.grad(slope.sum(), x)


def test_blocks_without_loops_and_other_modules() -> None:
    momentum = nldsl.compile("hope_with_momentum", block="self_modifying_titans_with_momentum", x=8, heads=2)
    assert "torch, as its backward pass is recorded" in str(nldsl.native(momentum))
    with pytest.raises(TypeError, match="takes a compiled model or layer, not `Linear`"):
        nldsl.native(torch.nn.Linear(2, 2))


def test_passes_over_chunks_are_told_too() -> None:
    plain = nldsl.compile(PASS, x=8, dtype=torch.float64)
    report = nldsl.native(plain, at_once=True)
    want = nldsl.compile(PASS, x=8, dtype=torch.float64)
    x = torch.randn(2, CHUNK, 8, dtype=torch.float64)
    with torch.no_grad():
        assert apart([plain(x)[0]], [want(x)[0]]) < 1e-10
    assert str(report) == "Passed.forward: in lanes"
    assert report.replaced == report.running == 1


# --- copies and threads --------------------------------------------------------------------------


def test_what_hooks_bring_back_may_lie_otherwise() -> None:
    def turned(x: torch.Tensor) -> torch.Tensor:
        return x.mT.contiguous() if x.dim() > 1 else x

    with torch.autograd.graph.saved_tensors_hooks(turned, lambda x: x.mT if x.dim() > 1 else x):
        plain, native, _ = pair(SIMPLE)
        assert apart(flows(native, 2 * CHUNK), flows(plain, 2 * CHUNK)) < 1e-10


def test_copies_are_native_with_weights_of_their_own() -> None:
    plain, native, _ = pair(SIMPLE)
    want = flows(plain, CHUNK)
    buffer = io.BytesIO()
    torch.save(native, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(native), torch.load(buffer, weights_only=False)):
        assert step(other).module is other.root
        with torch.no_grad():
            for parameter in native.parameters():
                parameter.add_(1.0)
        assert apart(flows(other, CHUNK), want) < 1e-10
    assert plain.state_dict().keys() == native.state_dict().keys()
    native.load_state_dict(plain.state_dict())
    assert apart(flows(native, CHUNK), want) < 1e-10


def test_threads() -> None:
    """First calls at the same time, and later ones."""
    plain, native, report = pair(HEADLESS, fresh=True)
    want, found = flows(plain, 2 * CHUNK), {}

    def run(n: int) -> None:
        found[n] = max(apart(flows(native, 2 * CHUNK), want) for _ in range(5))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert max(found.values()) < 1e-10
    assert report.running == 1


def test_lanes_are_shared_by_threads_of_torch() -> None:
    plain, native, _ = pair(SIMPLE)
    want = flows(plain, 2 * CHUNK)
    try:
        torch.set_num_threads(3)
        assert apart(flows(native, 2 * CHUNK), want) < 1e-10
    finally:
        torch.set_num_threads(1)


class Looking(TorchDispatchMode):
    """Notes the operations of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_lanes_and_graphs_of_torch() -> None:
    """Who looks on sees the operations; a graph has them, or calls lanes."""
    plain, native, report = pair(SIMPLE, fresh=True)
    x = torch.randn(2, CHUNK, 8, dtype=torch.float64)
    with torch.no_grad(), Looking() as seen:
        native(x)
    assert any("mm" in name for name in seen.names)
    assert report.running == 0
    made = torch.compile(native, backend="eager")
    with torch.no_grad():
        assert apart([made(x)[0]], [plain(x)[0]]) < 1e-10


# --- what is seen --------------------------------------------------------------------------------


def test_lanes_that_are_not_independent_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is taken for a lane: lanes must give what the step gives."""
    monkeypatch.setattr(steps, "places_of", lambda given, shared, values, axes: no_lanes(given, values))
    plain, native, report = pair(SIMPLE, fresh=True)
    assert apart(flows(native, CHUNK), flows(plain, CHUNK)) < 1e-12
    assert "a lane alone is no step" in str(report)


def no_lanes(given: Sequence[Any], values: Sequence[Any]) -> tuple[list[Place], list[Place]]:
    """Nothing has heads, and the tokens are lanes."""
    return [Place(True, True)] * len(given), [Place(False, False)] * len(values)


@pytest.mark.parametrize("module", [lanes_of, pairs])
def test_wrong_numbers_of_a_first_call_are_seen(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a memory at its start would hide them."""
    right = lanes_of.called
    if module is lanes_of:
        monkeypatch.setattr(StepForm, "pair", lambda *_: None)

    def wrong(*given: Any) -> Any:
        return [None if y is None else 1.001 * y for y in right(*given)]

    monkeypatch.setattr(module, "called", wrong)
    plain, native, report = pair(SIMPLE, fresh=True)
    assert apart(flows(native, CHUNK), flows(plain, CHUNK)) < 1e-12
    assert report.running == 0
    assert "differs from torch's" in str(report)


FAULTS: dict[str, Callable[[Any], Any]] = {
    "forward": lambda f: (
        lambda self, *a, **o: (lambda r: (tuple(1.001 * y for y in r[0]), r[1]))(f(self, *a, **o))
    ),
    "backward": lambda f: lambda self, *a, **o: [None if d is None else 1.001 * d for d in f(self, *a, **o)],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_behind_the_first_call_is_seen_here(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, native, _ = pair(SIMPLE)
    flows(native, CHUNK)
    monkeypatch.setattr(StepForm, fault, FAULTS[fault](getattr(StepForm, fault)))
    assert apart(flows(native, CHUNK), flows(plain, CHUNK)) > 1e-5


def test_a_form_serves_other_batches() -> None:
    plain, native, report = pair(SIMPLE)
    flows(native, CHUNK)
    before = report.running
    for batch in (1, 5):
        x = torch.randn(batch, 3 * CHUNK, 8, dtype=torch.float64)
        assert apart([native(x)[0]], [plain(x)[0]]) < 1e-10
    assert report.running == before


def test_what_verify_asks_of_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    native, inputs = made(SIMPLE, torch.float64), (torch.randn(2, CHUNK, 8, dtype=torch.float64),)
    assert all(found.good for found in in_lanes(native, inputs, 0))
    monkeypatch.setattr(StepForm, "backward", FAULTS["backward"](StepForm.backward))
    assert not all(found.good for found in in_lanes(native, inputs, 0))
    linear = nldsl.compile("attention", block="attention", x=8, heads=2, dtype=torch.float64)
    # Where products of linear layers are C, they are what is compared.
    monkeypatch.setattr(turn_on, "products", lambda _: None)
    with pytest.raises(LeftOutError, match="no block has a loop or a pass over chunks"):
        list(in_lanes(linear, (inputs[0],), 0))


def test_a_width_is_compiled_from_its_fifth_chunk_on() -> None:
    native = nldsl.compile(SIMPLE, x=8, dtype=torch.float64)
    report = nldsl.native(native)
    with torch.no_grad():
        for chunks, running in ((4, 0), (1, 1)):
            native(torch.randn(1, chunks * CHUNK, 8, dtype=torch.float64))
            assert report.running == running
