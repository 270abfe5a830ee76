"""Memories that run in one pass with their chunks in C: equal to interpreter and torch; faults are found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.driver.compile import emit, plan_of
from nldsl.emit.loader import load_module
from nldsl.graph import open_program
from nldsl.native import held, held_forms, held_runs, lanes, turns
from nldsl.native.held import NativePass, NativeSteps, passes_of, quicken
from nldsl.runtime import native
from nldsl.runtime.held_back import Flows, Found
from nldsl.runtime.model import Layer
from tests.conformance.agreement import compiled, disagreements
from tests.conformance.all_results import everything
from tests.conformance.test_lowerings import PROGRAMS

pytestmark = pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")
NAMES = [n for n in PROGRAMS if n.startswith("pass_")]
HEADS, LIVE, COMMIT = "pass_momentum_heads", "pass_live_titans", "pass_commit_heads"
SHORT = [LIVE, COMMIT, "pass_commit_toward", "pass_live_biased", "pass_live_toward", "pass_window"]
SHARED = """
map tilted(z) {
  W = weight(dim(z), dim(z))
  return layernorm(linear(tanh(W @ z)))
}
block b(x) {
  level c every 3 tokens { memory M = tilted() }
  M[l2norm(linear(x))] <- linear(x) minimize l2 by gd(lr = 0.2) retain 0.9
  return M[linear(x)]
}
"""
DEEP = """
block deep(x) {
  level c every 3 tokens { memory M = mlp(2) }
  M[l2norm(x)] <- tanh(x)  minimize l2  by momentum(lr = 0.2, beta = 0.8)  retain 0.9
  return M[l2norm(x)]
}
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every width is compiled when it is seen, by a compiler that takes less time."""
    monkeypatch.setattr(held_forms, "AFTER", 0)
    monkeypatch.setattr(native, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])


def in_lanes(layer: Layer) -> NativePass:
    """The memories of the outermost block, from now on in C."""
    assert passes_of(type(layer.root))
    return quicken(layer.root)


def of_program(name: str) -> tuple[Layer, NativePass, int]:
    """The layer in float64, what runs its memories, and the longest of their chunks."""
    text, arguments = PROGRAMS[name]
    layer = compiled(text, **arguments)
    chunk = max(u.detail.grid for u in layer.plan.blocks[-1].units if u.memories)
    return layer, in_lanes(layer), chunk


def all_in_c(found: NativePass) -> bool:
    """Whether something runs in C, and nothing does not."""
    return found.count > 0 and not found.reasons


@pytest.mark.parametrize("name", [HEADS, COMMIT])
def test_equals_the_interpreter_in_pieces(name: str) -> None:
    """With masked tokens and samples at different counts: values, states, gradients."""
    layer, found, chunk = of_program(name)
    mask = torch.rand(3, 2 * chunk + 1, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[1] = False
    assert disagreements(layer, tokens=2 * chunk + 1, batch=3, mask=mask, pieces=(2, 0, 2 * chunk - 1)) == []
    assert all_in_c(found)


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(n, marks=pytest.mark.long) for n in NAMES)])
def test_equals_the_interpreter(name: str) -> None:
    """Three chunks are one call, and what is in front of the first commit another."""
    layer, found, chunk = of_program(name)
    assert disagreements(layer, tokens=4 * chunk, batch=1) == []
    assert all_in_c(found)


def test_slow_parameters_in_the_map() -> None:
    """A matrix and two vectors."""
    layer = compiled(SHARED, x=4)
    found = in_lanes(layer)
    assert disagreements(layer, tokens=12, batch=3) == []
    assert all_in_c(found)


def _of(name: str, dtype: torch.dtype) -> Layer:
    text, arguments = PROGRAMS[name]
    plan = plan_of(open_program(text, **arguments))
    layer: Layer = load_module(emit(plan), "held_native").build(0).to(dtype)
    return layer


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
@pytest.mark.parametrize("name", [HEADS, LIVE, COMMIT])
def test_equals_torch(name: str, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks by torch in front of those in C, some of these in one call; samples one by one."""
    monkeypatch.setattr(held_forms, "AFTER", 2)
    monkeypatch.setattr(held, "ROOM", 1)
    counts: list[int] = []
    for module in (held_forms, held_runs):
        monkeypatch.setattr(module, "run", lambda *given: [counts.append(given[2]), turns.run(*given)])
    x = torch.randn(2, 26, 6, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()
    mine, theirs = _of(name, dtype), _of(name, dtype)
    found = in_lanes(mine)
    for a, b in zip(everything(mine, x), everything(theirs, x), strict=True):
        assert float((a - b).detach().abs().max()) <= bound * float(b.detach().abs().max().clamp_min(1.0))
    assert all_in_c(found)
    # Ahead: three of one sample and six of the other, each end apart; back: two of each.
    assert sorted(counts) == sorted([1, 1, 1, 1, 4, 1, 2, 2])


def test_a_run_behind_a_chunk_that_had_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tokens end a chunk, then come five of one width: those between the ends go back at once."""
    mine, theirs = compiled(DEEP, x=6), compiled(DEEP, x=6)
    theirs.load_state_dict(mine.state_dict())
    found, counts = in_lanes(mine), list[int]()
    for module in (held_forms, held_runs):
        monkeypatch.setattr(module, "run", lambda *given: [counts.append(given[2]), turns.run(*given)])
    x = torch.randn(1, 18, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def slopes(layer: Layer) -> tuple[Tensor, ...]:
        counts.clear()
        _, state = layer(x[:, :1])
        y, _ = layer(x[:, 1:], state=state)
        return torch.autograd.grad(y.square().sum(), list(layer.parameters()))

    slopes(mine)
    for a, b in zip(slopes(mine), slopes(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    slopes(mine)
    assert sorted(counts) == [1, 1, 3, 3]
    assert all_in_c(found)


def turned(tree: Any) -> Any:
    """A state whose matrices are the same, with contiguous columns."""
    if isinstance(tree, dict):
        return {name: turned(x) for name, x in tree.items()}
    return tree.mT.contiguous().mT if isinstance(tree, Tensor) and tree.dim() > 2 else tree


def test_states_may_lie_in_any_way() -> None:
    """One chunk, then three that are one call."""
    mine, theirs = compiled(DEEP, x=6), compiled(DEEP, x=6)
    theirs.load_state_dict(mine.state_dict())
    found = in_lanes(mine)
    x = torch.randn(2, 15, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    answers: list[list[Tensor]] = []
    for layer in (mine, theirs):
        state, rows = None, []
        for part in x.split((3, 3, 9), 1):
            if state is not None:
                state.tree = turned(state.tree)
            y, state = layer(part, state=state)
            rows.append(y)
        answers.append(rows)
    for a, b in zip(*answers, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    assert all_in_c(found)


def test_only_what_is_asked_for() -> None:
    """Gradients of the state alone, and none at all."""
    layer, found, _ = of_program(HEADS)
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    y, state = layer(x)
    (got,) = torch.autograd.grad(state.tree["root"]["M"]["running"]["W1"].sum(), x)
    plain = _of(HEADS, torch.float64)
    plain.load_state_dict(layer.state_dict())
    _, other = plain(x)
    (wanted,) = torch.autograd.grad(other.tree["root"]["M"]["running"]["W1"].sum(), x)
    assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(layer(x)[0], y, rtol=1e-12)
    assert all_in_c(found)


def test_torch_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "compiler", lambda: "")
    layer, found, chunk = of_program(HEADS)
    assert disagreements(layer, tokens=2 * chunk + 1) == []
    assert (found.count, list(found.reasons)) == (0, [native.no_compiler()])


def test_torch_where_c_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """What C makes is compared when it is first called: a product that is too large is found out."""
    right = lanes.kernel_text()
    wrong = right.replace("* alpha", "* (alpha * (real)1.01)")
    assert wrong != right
    monkeypatch.setattr(lanes, "kernel_text", lambda: wrong)
    layer, found, chunk = of_program(HEADS)
    assert disagreements(layer, tokens=chunk) == []
    assert found.count == 0
    assert all("differs from torch's" in reason for reason in found.reasons)


def test_a_lost_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter sees it, so it would see another."""
    whole = NativeSteps.back

    def lossy(self: NativeSteps, *given: Any) -> tuple[Found, Flows]:
        found, flows = whole(self, *given)
        return found, flows._replace(slots=[torch.zeros_like(x) for x in flows.slots])

    monkeypatch.setattr(NativeSteps, "back", lossy)
    monkeypatch.setattr(held_forms, "AFTER", 99)
    layer, _, chunk = of_program(HEADS)
    assert disagreements(layer, tokens=2 * chunk + 1)


def test_none_to_find() -> None:
    layer = compiled("linear_attention", block="linear_attention", x=8, heads=2)
    assert not passes_of(type(layer.root))
