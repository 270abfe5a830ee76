"""Memories in one pass with a derived way back: taken, and equal to interpreter and loop over chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nldsl.driver import plan_of
from nldsl.driver.compile import emit
from nldsl.emit.loader import load_module
from nldsl.graph import open_program
from nldsl.runtime import held_walk
from nldsl.runtime.model import Layer
from tests.conformance.agreement import compiled, disagreements
from tests.conformance.all_results import everything
from tests.conformance.test_lowerings import PROGRAMS

NAMES = [n for n in PROGRAMS if n.startswith("pass_")]
HEADS, COMMIT = "pass_momentum_heads", "pass_commit_heads"


def passing(name: str) -> tuple[Layer, int]:
    """The layer, and its chunk; its memories take the pass."""
    text, arguments = PROGRAMS[name]
    layer = compiled(text, **arguments)
    units = [u for u in layer.plan.blocks[-1].units if u.memories]
    assert {u.lowering for u in units} == {"held"}
    return layer, max(u.detail.grid for u in units)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_interpreter(name: str) -> None:
    """In pieces, with masked tokens, samples at different counts; then whole over several chunks."""
    layer, chunk = passing(name)
    mask = torch.rand(3, 2 * chunk + 2, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[1] = False
    pieces = (2, chunk + 1, 0, chunk - 1)
    assert disagreements(layer, tokens=2 * chunk + 2, batch=3, mask=mask, pieces=pieces) == []
    assert disagreements(layer, tokens=3 * chunk + 2) == []


@pytest.mark.parametrize("tokens", [0, 1, 3, 4, 5, 8])
@pytest.mark.parametrize("name", [HEADS, COMMIT])
def test_lengths(name: str, tokens: int) -> None:
    layer, _ = passing(name)
    assert disagreements(layer, tokens=tokens, gradients=tokens > 0) == []


@pytest.mark.parametrize("pieces", [(1,) * 9, (3, 3, 3), (5, 4), (4, 1, 4)])
def test_sums_wait_for_the_commit(pieces: tuple[int, ...]) -> None:
    """However a sequence is cut; samples at different counts, one of which has not seen a token."""
    layer, _ = passing(COMMIT)
    assert disagreements(layer, tokens=9, batch=1, pieces=pieces) == []
    mask = torch.rand(3, 9, generator=torch.Generator().manual_seed(4)) > 0.4
    mask[2, :5] = False
    assert disagreements(layer, tokens=9, batch=3, mask=mask, pieces=pieces) == []


def test_waiting_sums_have_gradients() -> None:
    """Gradients at the state a call is given, against the loop over chunks: where nothing waits, too."""
    for tokens in (2, 6, 8):
        found = []
        for family in ("", "chunk"):
            layer = _of(COMMIT, torch.float64, family=family)
            x = torch.randn(2, tokens, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
            _, state = layer(x[:, :0])
            given = state.tree["root"]["M"]["gathered"]["0"]
            for n, weight in given.items():
                given[n] = (weight + (0.5 if tokens == 6 else 0.0)).requires_grad_()
            y, last = layer(x, state=state)
            sums = last.tree["root"]["M"]["gathered"]["0"]
            total = (y**2).sum() + sum((g**3).sum() for g in sums.values())
            at = torch.autograd.grad(total, list(given.values()), allow_unused=True)
            found.append([y, *sums.values(), *(torch.zeros(()) if g is None else g for g in at)])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b.expand_as(a), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [HEADS, COMMIT, "pass_live_above_and_below"])
def test_samples_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the weights of all samples are more than what is worked on together."""
    monkeypatch.setattr(held_walk, "CACHE", 1)
    layer, _ = passing(name)
    mask = torch.rand(3, 10, generator=torch.Generator().manual_seed(2)) > 0.3
    assert disagreements(layer, tokens=10, batch=3, mask=mask, pieces=(3, 7)) == []


def _of(name: str, dtype: torch.dtype, **how: Any) -> Layer:
    text, arguments = PROGRAMS[name]
    program = open_program(text, **arguments)
    layer: Layer = load_module(emit(plan_of(program, **how)), "held_or_chunk").build(0).to(dtype)
    return layer


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
@pytest.mark.parametrize(
    "name", [HEADS, "pass_gd_no_gate", "pass_own_map", *(n for n in NAMES if "live" in n or "commit" in n)]
)
def test_equals_the_loop(name: str, dtype: torch.dtype, bound: float) -> None:
    size = dict(PROGRAMS[name][1])["x"]
    x = torch.randn(2, 21, size, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()
    mine, theirs = (everything(_of(name, dtype, family=f), x) for f in ("", "chunk"))
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert float((a - b).abs().max()) <= bound * float(b.abs().max().clamp_min(1.0))


@pytest.mark.parametrize("name", [HEADS, COMMIT, "pass_live_titans"])
def test_only_what_is_asked_for(name: str) -> None:
    """Gradients of the state alone, of answers alone, and none at all."""
    layer, _ = passing(name)
    x = torch.randn(2, 9, 6, dtype=torch.float64, requires_grad=True)
    y, state = layer(x)
    last = state.tree["root"]["M"]["running"]["W1"]
    for target in (y, last):
        got = torch.autograd.grad(target.sum(), x, retain_graph=True)[0]
        assert bool(got.isfinite().all())
        assert float(got.abs().max()) > 0
    with torch.no_grad():
        z, _ = layer(x)
    assert torch.equal(y, z)
    assert z.grad_fn is None


REFUSED = {
    "a rate that looks at the input of the weight, over several tokens": (
        "every 4 tokens",
        "over 2 tokens",
        "mlp(2)",
        "normalised_momentum(lr = 0.1, beta = 0.5)",
    ),
    "gradients at another clock": ("every 4 tokens", "gradient every 2 tokens", "mlp(2)", "gd(lr = 0.1)"),
    "a filter, or one of two rates, that looks at the input": (
        "every 4 tokens",
        "",
        "mlp(2)",
        "own(lr = 0.1)",
    ),
    "a gradient of several outer products": ("every 4 tokens", "", "twice()", "gd(lr = 0.1)"),
    "a rule that erases": ("every 4 tokens", "", "mlp(2)", "dgd(lr = 0.1)"),
    "rule `muon` is not linear": ("every 4 tokens", "at commit", "mlp(2)", "muon(lr = 0.1)"),
    "the memory of rule `decayed` is not a linear filter of gradients": (
        "every 4 tokens",
        "at commit",
        "mlp(2)",
        "decayed(lr = 0.1)",
    ),
    "projects its weights": ("every 4 tokens", "at commit project rownorm", "mlp(2)", "gd(lr = 0.1)"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_says_why_not(reason: str) -> None:
    """What the pass does not take runs in the loop over chunks, and the plan says why."""
    clock, clause, weights, rule = REFUSED[reason]
    over, rest = (clause, "") if clause.startswith("over") else ("", clause)
    text = (
        "rule own(lr) { memory m = like(W); m = 0.5 * m - lr * g; W = W + m - lr / (1 + sum(x * x)) * g }\n"
        "map twice(z) { W = weight(dim(z), dim(z)); return W @ tanh(W @ z) }\n"
        "rule decayed(lr) { memory m = like(W); m = 0.9 * m + g + 0.1 * W; W = W - lr * m }\n"
        f"block b(x) {{\n  level c {clock} {{ memory M = {weights} }}\n"
        f"  M[l2norm(linear(x))] <- linear(x) minimize l2 {over} by {rule} {rest}\n"
        "  return M[linear(x)]\n}\n"
    )
    (unit,) = [u for u in plan_of(open_program(text, x=4)).blocks[-1].units if u.memories]
    said = next(v for v in unit.verdicts if v.family == "held")
    assert unit.lowering == "chunk"
    assert reason in said.reason
