"""Matrix memories whose rules remember, in C: equal to interpreter and torch; faults are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.native import filtered
from nldsl.native.filtered import FilteredForm, NativeFilters, filters_of, quicken_filters
from nldsl.native.lanes import Lanes
from nldsl.runtime import native
from nldsl.runtime.filtered import Kernels, Rows, filtered_pass
from nldsl.runtime.matrix_memory import MatrixMemory
from nldsl.runtime.matrix_tokens import Gate, Momentum, Piece, Write
from nldsl.runtime.model import Layer
from tests.conformance.agreement import compiled, disagreements

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
MOMENTUM = "momentum(lr = rate, beta = sigmoid(linear(x, heads)))"
NESTEROV = "nesterov(lr = rate, beta = 0.8)"
BLOCK = """
block b(x, heads = 2) {{
  level c every 1 token {{ memory S = matrix() per head(heads) init zero }}
  rate = 0.3 * sigmoid(linear(x, heads))
  q = split(linear(x), heads)
  k = l2norm(split(linear(x), heads))
  S[k] <- split(linear(x), heads) minimize l2 by {rule} retain sigmoid(linear(x, heads) + 3)
  return merge(S[q])
}}
"""
SUM = """
block b(x) {
  level c every 1 token { memory S = matrix() init zero }
  S[linear(x)] <- linear(x) minimize l2 by gd(lr = 0.1)
  return S[linear(x)]
}
"""
SIZES = {
    "own keys": (3, 12, 2, 1, 2, 3),
    "two pieces": (1, 10, 2, 2, 3, 2),
    "a chunk": (1, 4, 3, 1, 2, 1),
    "no width": (2, 3, 1, 1, 2, 3),
}
"""Batch, tokens, heads, pieces, states, chunks."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every width is compiled when it is seen, by a compiler that takes less time."""
    monkeypatch.setattr(filtered, "AFTER", 0)
    monkeypatch.setattr(native, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])


def in_lanes(rule: str) -> tuple[Layer, NativeFilters]:
    """A layer in float64, its passes from now on in C."""
    layer = compiled(BLOCK.format(rule=rule), x=6)
    assert filters_of(type(layer.root))
    return layer, quicken_filters(layer.root)


def all_in_c(found: NativeFilters) -> bool:
    """Whether something runs in C, and nothing does not."""
    return found.count > 0 and not found.reasons


@pytest.mark.parametrize(("rule", "batch"), [(MOMENTUM, 3), (NESTEROV, 1)])
def test_equals_the_interpreter(rule: str, batch: int) -> None:
    """Values, states and gradients, in pieces of odd lengths, some tokens masked."""
    layer, found = in_lanes(rule)
    mask = torch.rand(batch, 13, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[0, :5] = False
    assert disagreements(layer, tokens=13, batch=batch, mask=mask, pieces=(3, 0, 10)) == []
    assert all_in_c(found)


def given(
    name: str, kind: torch.dtype, *, own: bool = True, seen: bool = False
) -> tuple[Rows, Kernels, Tensor]:
    """Everything a pass takes, drawn; none of it has to come from a rule."""
    batch, tokens, heads, pieces, states, chunks = SIZES[name]
    draw, (inner, outer) = torch.Generator().manual_seed(0), (4, 5)
    width, lanes = tokens // chunks, batch * heads
    rows = width * pieces

    def new(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=draw, dtype=torch.float64).mul(0.3).to(kind).requires_grad_()

    lead, chunk = (batch, tokens, heads), (chunks, lanes)
    tensors = Rows(
        new(*lead, inner),
        new(*lead, pieces, inner),
        new(*lead, pieces, outer),
        new(*lead, pieces),
        None if own else new(*lead, pieces, inner),
    )
    kernels = Kernels(
        new(*chunk, rows, rows) if seen else None,
        new(*chunk, width, rows),
        new(*chunk, rows, states),
        new(*chunk, width, states),
        new(*chunk, rows, states),
        new(*chunk, states, states),
    )
    return tensors, kernels, new(states, batch, heads, outer, inner)


def computed(pass_given: tuple[Rows, Kernels, Tensor], instead: NativeFilters | None) -> Sequence[Tensor]:
    """Answers, states, and gradients of everything given."""
    rows, kernels, state = pass_given
    y, last = filtered_pass(rows, kernels, state, instead)
    flows = [torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view(x.shape) for x in (y, last)]
    leaves = [x for x in (*rows, *kernels, state) if x is not None]
    return [y, last, *torch.autograd.grad([y, last], leaves, flows)]


def differs(found: Sequence[Tensor], wanted: Sequence[Tensor], most: float) -> list[int]:
    """Which of the results are further apart than `most` of the largest number."""
    pairs = enumerate(zip(found, wanted, strict=True))
    return [n for n, (a, b) in pairs if (a - b).abs().max() > most * b.abs().max() + 1e-12]


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("name", "own", "seen"),
    [
        ("own keys", True, False),
        ("own keys", False, False),
        ("two pieces", False, True),
        ("a chunk", True, True),
        ("no width", True, False),
    ],
)
def test_equals_torch(name: str, own: bool, seen: bool, kind: torch.dtype) -> None:
    """With an initial state that has a gradient, when it is compiled and when it is called again."""
    found, taken = NativeFilters(), given(name, kind, own=own, seen=seen)
    wanted = computed(taken, None)
    for _ in range(2):
        assert differs(computed(taken, found), wanted, 1e-10 if kind is torch.float64 else 2e-5) == []
    assert found.count == 2
    assert all_in_c(found)


@pytest.mark.parametrize(
    ("log", "at", "kind"), [(True, 1, torch.float32), (True, 0, torch.float64), (False, 1, torch.float64)]
)
def test_kernels_of_gates_are_made_in_lanes(log: bool, at: int, kind: torch.dtype) -> None:
    """From logarithms and from decays of any sign, some of them zero; some tokens masked, odd lengths."""
    draw, sizes = torch.Generator().manual_seed(0), (3, 11, 2)

    def new(*sizes: int, low: float = -1.0) -> Tensor:
        x = low + (1 - low) * torch.rand(*sizes, generator=draw, dtype=torch.float64)
        return x.to(kind).requires_grad_()

    q, k, v = new(*sizes, 4), new(*sizes, 4), new(*sizes, 5)
    rate, state, slot = new(*sizes, low=0.0), new(3, 2, 5, 4), new(3, 2, 5, 4)
    decays = [(new(*sizes) - (1.0 if log else 0.0)).detach() for _ in range(2)]
    if not log:
        decays = [x.masked_fill_(x.abs() < 0.2, 0.0) for x in decays]
    gates = [x.requires_grad_() for x in decays]
    mask = torch.rand(3, 11, generator=draw) > 0.2

    def computed(make: Callable[..., MatrixMemory]) -> list[Tensor]:
        keep, beta = (Gate(log=x) if log else Gate(x) for x in gates)
        steps = (Write((Piece(k, v, k, rate),), keep),)
        memory = make(state, steps, mask=mask, momentum=Momentum(beta, None, slot), chunk=4)
        results = [memory.read(q, at=at), memory.state, memory.momentum]
        flows = [torch.linspace(-1, 2, x.numel(), dtype=kind).view(x.shape) for x in results]
        leaves = [q, k, v, rate, state, slot, *gates]
        return [*results, *torch.autograd.grad(results, leaves, flows)]

    found = NativeFilters()
    wanted = computed(MatrixMemory)
    for _ in range(2):
        assert (
            differs(computed(filtered.in_lanes(found)), wanted, 1e-10 if kind is torch.float64 else 2e-5)
            == []
        )
    assert all_in_c(found), found.reasons
    assert len(found.forms) == 1


def test_faults_are_found() -> None:
    """Every result of both ways counts: one that is off by a thousandth is seen."""
    taken = given("two pieces", torch.float64, own=False, seen=True)
    found, wanted = NativeFilters(), computed(taken, None)
    assert differs(computed(taken, found), wanted, 1e-10) == []
    form = found.forms[None]
    for name, count in (("ahead", 4), ("behind", 12)):
        lanes = getattr(form, name)
        for place in range(-1, count):

            def wrong(*x: Tensor | None, at: int = place, lanes: Lanes = lanes) -> list[Tensor | None]:
                made = lanes(*x)
                return [y if n != at or y is None else 1.001 * y for n, y in enumerate(made)]

            faulty = NativeFilters()
            faulty.forms[None] = FilteredForm(None)
            setattr(faulty.forms[None], name, Faulty(wrong))
            other = "behind" if name == "ahead" else "ahead"
            setattr(faulty.forms[None], other, getattr(form, other))
            assert bool(differs(computed(taken, faulty), wanted, 1e-10)) == (place >= 0), (name, place)


class Faulty:
    """Lanes that have a fault, chunk by chunk."""

    def __init__(self, function: Callable[..., list[Tensor | None]]) -> None:
        self.function, self.reasons, self.compiled = function, dict[object, str](), 1

    def form(self, _: Sequence[Tensor | None]) -> None:
        """No function of C."""

    def __call__(self, *given: Tensor | None) -> list[Tensor | None]:
        return self.function(*given)


def test_what_is_not_taken() -> None:
    """Half-wide numbers, autocast, empty tensors: torch computes them."""
    rows, kernels, state = given("own keys", torch.float32)
    found = NativeFilters()

    def takes(rows: Rows, kernels: Kernels, state: Tensor) -> bool:
        return found.passed(rows, kernels, None, state) is not None

    halves = [[None if x is None else x.bfloat16() for x in group] for group in (rows, kernels)]
    assert takes(rows, kernels, state)
    assert not takes(Rows(*halves[0]), Kernels(*halves[1]), state.bfloat16())  # type: ignore[arg-type]
    assert not takes(rows._replace(q=rows.q.double()), kernels, state)
    assert not takes(rows._replace(q=rows.q.to("meta")), kernels, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not takes(rows, kernels, state)


def test_without_a_form_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is kept, and the report says it."""
    layer = compiled(BLOCK.format(rule=MOMENTUM), x=6)
    report = nldsl.native(layer)
    monkeypatch.setattr("nldsl.native.lanes.compiler", lambda: "")
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    for _ in range(2):
        layer(x)
    assert f"but where {native.no_compiler()}: there torch" in str(report)
    assert disagreements(layer, tokens=9, batch=2) == []


def test_widths_that_come_once_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than some chunks."""
    monkeypatch.setattr(filtered, "AFTER", 4)
    found, taken = NativeFilters(), given("own keys", torch.float64)
    for count in (0, 0, 2):
        computed(taken, found)
        assert found.count == count


def test_a_way_back_belongs_to_its_way_forward() -> None:
    """What was computed by torch goes back by torch, though lanes were turned on meanwhile."""
    found, (rows, kernels, state) = NativeFilters(), given("own keys", torch.float64)
    found.after = 100
    y, _ = filtered_pass(rows, kernels, state, found)
    found.after = 0
    again, _ = filtered_pass(rows, kernels, state, found)
    flows = [torch.autograd.grad(x.sum(), rows.q)[0] for x in (y, again)]
    assert differs(flows[:1], flows[1:], 1e-10) == []


def test_sums_alone_have_no_such_pass() -> None:
    """Nothing is replaced where a rule remembers nothing."""
    assert not filters_of(type(compiled(SUM, x=4).root))
