"""What every optimizer does, for rules of every form and parameters of every type."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.runtime.rule_optimizer import RuleOptimizer

MINE = "rule mine(lr, beta = 0.9) { memory m = like(W); m = beta * m + g; W = W - lr * sign(m) }"
RULES = {"adamw": "adamw", "muon": "muon", "m3": "m3", "mine": MINE}
TYPES = [torch.float32, torch.float64, torch.bfloat16]
every_type = pytest.mark.parametrize("dtype", TYPES, ids=str)
every_rule = pytest.mark.parametrize("rule", RULES)


def weights(dtype: torch.dtype) -> list[nn.Parameter]:
    """One small, and one large enough for a loop in C."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in ((12, 8), (300, 260))]


def steps(optimizer: RuleOptimizer, count: int) -> None:
    for _ in range(count):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = 0.1 * p.detach()
        optimizer.step()


@every_rule
@every_type
def test_a_saved_state_goes_on_to_the_last_bit(rule: str, dtype: torch.dtype) -> None:
    whole, half = weights(dtype), weights(dtype)
    before = whole[0].detach().clone()
    steps(nldsl.optimizer(RULES[rule], whole, lr=1e-2), 4)
    first = nldsl.optimizer(RULES[rule], half, lr=1e-2)
    steps(first, 2)
    again = nldsl.optimizer(RULES[rule], half, lr=1e-2)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(again, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, half, strict=True))
    assert not torch.equal(whole[0], before) and all(p.dtype == dtype for p in whole)


@every_type
def test_a_slow_clock_goes_on_where_it_stood(dtype: torch.dtype) -> None:
    """Beyond 256, where bfloat16 has no odd numbers; gathered gradients too."""
    whole, half = ([nn.Parameter(torch.ones(3, 2, dtype=dtype))] for _ in range(2))
    steps(nldsl.optimizer("adamw", whole, lr=1e-2, every=302), 302)
    first = nldsl.optimizer("adamw", half, lr=1e-2, every=302)
    steps(first, 301)
    again = nldsl.optimizer("adamw", half, lr=1e-2, every=302)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(half[0], torch.ones_like(half[0]))
    steps(again, 1)
    assert torch.equal(whole[0], half[0]) and not torch.equal(half[0], torch.ones_like(half[0]))


@every_rule
@every_type
@pytest.mark.parametrize("policy", ["raise", "skip", "zero"])
def test_bad_gradients(rule: str, dtype: torch.dtype, policy: str) -> None:
    given = weights(dtype)
    optimizer = nldsl.optimizer(RULES[rule], given, lr=1e-2, nonfinite=policy)
    steps(optimizer, 1)
    before = [p.detach().clone() for p in given]
    for p in given:
        p.grad = torch.ones_like(p)
    given[1].grad[200, 3] = float("nan")
    if policy == "raise":
        with pytest.raises(SpecError, match="NL0967"):
            optimizer.step()
    else:
        with pytest.warns(UserWarning, match="not finite"):
            optimizer.step()
    same = all(torch.equal(a, b) for a, b in zip(before, given, strict=True))
    assert same == (policy != "zero") and all(bool(torch.isfinite(p).all()) for p in given)
