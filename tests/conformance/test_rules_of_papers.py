"""Rules of other papers equal a loop by hand: all shapes of weights, clocks, rules in rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import nldsl
from nldsl.reference import primitives as reference
from nldsl.runtime import ops
from tests.conformance.rules_of_papers import RULES

MODEL = """
model m(tokens) {{ return head(embed(tokens, 4, 4), 4) }}
train m {{ rest by {} }}
"""
SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (5, 7), "vector": (7,), "number": (), "convolution": (2, 3, 4, 3),
}  # fmt: skip


def optimizer(name: str, params: Any, **settings: Any) -> Any:
    text, call, _ = RULES[name]
    plan = nldsl.program(text + MODEL.format(call)).train
    assert plan is not None
    return nldsl.optimizer(plan.groups[0], params, **settings)


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RULES)
def test_fifty_steps_equal_the_loop(name: str, shape: str) -> None:
    weight = nn.Parameter(drawn(SHAPES[shape], 1))
    ready, wanted, state = optimizer(name, [weight]), weight.detach().clone(), dict[str, Any]()
    for step in range(1, 51):
        g = drawn(SHAPES[shape], 100 + step)
        weight.grad = g.clone()
        ready.step()
        wanted = RULES[name][2](wanted, g, state, step)
    assert float((weight.detach() - wanted).abs().max()) <= 1e-12 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["cautious", "lamb", "adam_mini", "slow_ema"])
def test_where_a_weight_lies_changes_nothing(name: str) -> None:
    """Channels last, a transpose, every second column: weights that no view makes a vector of."""
    plain = drawn((3, 2, 4, 5), 2)
    cases = [
        (plain, plain.clone().to(memory_format=torch.channels_last)),
        (drawn((6, 4), 3), drawn((6, 4), 3).t().contiguous().t()),
        (drawn((6, 4), 3), drawn((6, 8), 4)[:, ::2]),
    ]
    for base, lying in cases:
        lying.copy_(base)
        found = [nn.Parameter(base.clone()), nn.Parameter(lying)]
        for weight in found:
            ready = optimizer(name, [weight])
            for step in range(4):
                weight.grad = drawn(tuple(base.shape), step)
                ready.step()
        assert not found[1].is_contiguous()
        torch.testing.assert_close(found[0].detach(), found[1].detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["prodigy", "look_lion", "came", "slow_ema"])
def test_a_saved_state_goes_on_as_if_nothing_had_been(name: str) -> None:
    def net() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(48, 5), nn.LayerNorm(5))

    def train(model: nn.Module, ready: Any, steps: range) -> None:
        for step in steps:
            ready.zero_grad()
            x = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(step))
            model(x).square().sin().mean().backward()
            ready.step()

    model = net()
    ready = optimizer(name, model)
    train(model, ready, range(5))
    kept = copy.deepcopy((model.state_dict(), ready.state_dict()))
    train(model, ready, range(5, 11))
    again = net()
    other = optimizer(name, again)
    again.load_state_dict(kept[0])
    other.load_state_dict(kept[1])
    train(again, other, range(5, 11))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_basis_of_a_gradient_that_is_mostly_zero() -> None:
    """Single precision LAPACK gives up on it: the gradient of an embedding under `soap`."""
    weight = nn.Parameter(torch.zeros(256, 8))
    ready = nldsl.optimizer("soap(lr = 1e-2)", [weight])
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        weight.grad = torch.zeros(256, 8)
        weight.grad[torch.randint(0, 256, (20,), generator=generator)] = torch.randn(
            20, 8, generator=generator
        )
        ready.step()
    assert bool(torch.isfinite(weight).all()) and bool(weight.any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["shampoo(lr = 0.1)", "soap(lr = 0.1)"])
def test_a_matrix_that_overflows_has_no_eigenvalues_and_says_nan(form: str, dtype: torch.dtype) -> None:
    """The gradient is finite, its square is not: numbers, no error of LAPACK in mid-step."""
    size = 1e25 if dtype == torch.float32 else 1e200
    weight = nn.Parameter(drawn((6, 4), 1).to(dtype))
    ready = nldsl.optimizer(form, [weight])
    for step in range(3):
        weight.grad = drawn((6, 4), 10 + step).to(dtype) * (size if step == 1 else 1)
        ready.step()
    assert float(ready.state[weight]["step"]) == 3
    overflowed = torch.full((3, 3), torch.inf, dtype=dtype)
    for inverse in (ops.inverse_root, reference.inverse_root):
        assert bool(torch.isnan(inverse(overflowed, root=4, eps=1e-4)).all())
    for basis in (ops.eigenbasis, reference.eigenbasis):
        assert bool(torch.isnan(basis(overflowed)).all())


def test_a_network_that_is_a_memory_of_a_number() -> None:
    text = """rule deep(lr = 1e-2) {
      memory m = mlp(2)
      m[g] <- g  minimize l2  by gd(lr = 1e-2)  retain 0.9
      W = W - lr * (g + m[g])
    }
    """
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    ready = nldsl.optimizer(text, [weight])
    before = {n: t.clone() for n, t in ready.state[weight].items()}
    weight.grad = torch.ones_like(weight)
    ready.step()
    after = ready.state[weight]
    assert len(before) == 3 and all(not torch.equal(before[n], after[n]) for n in before)


WRONG = [
    ("rule a(lr = 1) { W = W - lr * g / 0 }", "NL0406", "division by zero"),
    ("rule a(lr = 1, g = 2) { W = W - lr * g }", "NL0322", "`g` is the gradient"),
    ("rule a(lr = 1, step = 2) { W = W - lr * step * g }", "NL0322", "count of steps"),
    ("rule a(lr = 1, params = 2) { W = W - lr * params * g }", "NL0322", "groups of an optimizer"),
    ("rule a(lr = 1) { memory step = like(W)\n step = g\n W = W - lr * step }", "NL0322", "count of steps"),
    ("rule a(lr = 1) { memory calls = like(W)\n calls = g\n W = W - lr * calls }", "NL0322", "slow clock"),
    ("rule a(lr = 1, b = 2) { W = W - lr * g }", "NL0328", "`b` of rule `a` is never used"),
    ("rule a() { W = 3 }", "NL0401", "gives `W` the number 3, expected [3, 2]"),
    ("rule a(lr = 1) { W = W - lr * max(g, 0) }", "NL0302", "`maximum(a, b)`"),
    ("rule a(lr = 1) { W = W - lr * (g - mean(g)) }", "NL0401", "`expand_last(rows, W)`"),
]


@pytest.mark.parametrize(("text", "code", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_what_is_wrong_is_said(text: str, code: str, said: str) -> None:
    with pytest.raises(nldsl.SpecError) as caught:
        nldsl.optimizer(text + "\n", [nn.Parameter(torch.zeros(3, 2))])
    finding = caught.value.diagnostics[0]
    told = " ".join((finding.message, finding.label, finding.help))
    assert finding.code == code and said in told
