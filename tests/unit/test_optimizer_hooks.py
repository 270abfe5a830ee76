"""Hooks of `torch.optim`, numbers that are tensors, and modules without shapes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import nldsl


def made(rate: Any = 0.1) -> tuple[nn.Linear, Any]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    return layer, nldsl.optimizer("adamw", layer, lr=rate)


def stepped(layer: nn.Linear, ready: Any, steps: int = 2) -> None:
    for step in range(steps):
        ready.zero_grad()
        layer(torch.randn(4, 3, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        ready.step()


def test_a_hook_before_loading_gives_the_state() -> None:
    (layer, ready), (other, own) = made(), made()
    stepped(layer, ready)
    own.register_load_state_dict_pre_hook(lambda _, found: found["inside"])
    own.load_state_dict({"inside": copy.deepcopy(ready.state_dict())})
    for p, q in zip(layer.parameters(), other.parameters(), strict=True):
        assert all(torch.equal(value, own.state[q][name]) for name, value in ready.state[p].items())
    stepped(other, own, 1)


def test_a_hook_behind_loading_has_the_last_word() -> None:
    (layer, ready), (other, own) = made(), made()
    stepped(layer, ready)
    saved = ready.state_dict()

    def afresh(optimizer: Any) -> None:
        for state in optimizer.state.values():
            state["m"] = torch.full_like(state["m"], 3.0)

    own.register_load_state_dict_post_hook(afresh)
    own.load_state_dict(saved)
    assert all((state["m"] == 3).all() and state["step"] == 2 for state in own.state.values())
    stepped(other, own, 1)


def test_a_hook_behind_loading_that_fails_changes_nothing() -> None:
    (layer, ready), (_, own) = made(), made()
    stepped(layer, ready)

    def fails(_: Any) -> None:
        raise ValueError("no")

    hook = own.register_load_state_dict_post_hook(fails)
    with pytest.raises(ValueError, match="no"):
        own.load_state_dict(ready.state_dict())
    assert all(state["step"] == 0 for state in own.state.values())
    hook.remove()
    own.load_state_dict(ready.state_dict())
    assert all(state["step"] == 2 for state in own.state.values())


def test_a_rate_that_is_a_tensor_may_change_in_place() -> None:
    rate = torch.tensor(0.1)
    (layer, ready), (other, own) = made(rate), made(0.1)
    stepped(layer, ready)
    stepped(other, own)
    assert torch.equal(layer.weight, other.weight)
    rate.fill_(0.5)
    own.param_groups[0]["lr"] = 0.5
    stepped(layer, ready, 1)
    stepped(other, own, 1)
    assert torch.equal(layer.weight, other.weight)
    schedule = torch.optim.lr_scheduler.ExponentialLR(ready, 0.5)
    stepped(layer, ready, 1)
    schedule.step()
    assert float(rate) == 0.25


def test_a_module_without_shapes_is_refused() -> None:
    with pytest.raises(nldsl.SpecError, match="NL0963.*`weight` has no shape yet"):
        nldsl.optimizer("adamw", nn.LazyLinear(3), lr=0.1)
