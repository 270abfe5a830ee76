"""What people and schedulers do to groups and states between two steps, against `torch.optim`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import nldsl
from nldsl.diagnostics import SpecError

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=13),
    "cyclic": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.001, 0.1, step_size_up=3),
}
"""With the cycle of momentum that they have by default."""


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def ours(model: nn.Module, **arguments: Any) -> Any:
    return nldsl.optimizer("adamw", model.parameters(), **{"lr": 0.05, **arguments})


def backward(model: nn.Module) -> None:
    model.zero_grad()
    (model(X) ** 2).mean().backward()


def refused(code: str, act: Callable[[], object], *said: str) -> None:
    with pytest.raises(SpecError) as caught:
        act()
    assert caught.value.diagnostics[0].code == code and all(word in str(caught.value) for word in said)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_that_cycle_a_momentum(name: str) -> None:
    found = []
    for make in (ours, lambda m: torch.optim.AdamW(m.parameters(), lr=0.05)):
        model = net()
        optimizer = make(model)
        scheduler = SCHEDULERS[name](optimizer)
        for _ in range(9):
            backward(model)
            optimizer.step()
            scheduler.step()
        found.append((flat(model), optimizer.param_groups[0]["betas"][0]))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


def test_one_number_under_two_names() -> None:
    model, twin = net(), net()
    optimizer, oracle = ours(model), torch.optim.AdamW(twin.parameters(), lr=0.05)
    group = optimizer.param_groups[0]
    for change, betas in ((lambda: None, (0.9, 0.999)), (lambda: group.update(beta1=0.5), (0.5, 0.999)),
                          (lambda: group.update(betas=(0.7, 0.95)), (0.7, 0.95))):  # fmt: skip
        change()
        oracle.param_groups[0]["betas"] = betas
        for m, o in ((model, optimizer), (twin, oracle)):
            backward(m)
            o.step()
        assert (group["beta1"], group["beta2"]) == group["betas"] == betas
    torch.testing.assert_close(flat(model), flat(twin), atol=1e-6, rtol=1e-5)
    group["beta2"] = 0.9
    assert ours(net(), beta1=0.1).param_groups[0]["betas"] == (0.1, 0.999)
    again = ours(net())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert again.param_groups[0]["beta2"] == 0.9 and again.param_groups[0]["betas"] == (0.7, 0.9)
    group["betas"] = (0.7,)
    refused("NL0968", optimizer.step, "`beta1` and `beta2`")


def test_groups_with_numbers_of_schedulers() -> None:
    model = net()
    groups = [{"params": list(model.parameters()), "initial_lr": 0.1, "betas": (0.8, 0.9)}]
    optimizer = nldsl.optimizer("adamw", groups, lr=0.1)
    assert optimizer.param_groups[0]["beta1"] == 0.8
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / epoch, last_epoch=4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_what_is_no_number_is_named() -> None:
    model = net()
    backward(model)
    for value in ("fast", torch.ones(2), None):
        optimizer = ours(model)
        optimizer.param_groups[0]["lr"] = value
        refused("NL0968", optimizer.step, "`lr`")
    assert ours(model, lr=torch.tensor(0.25)).param_groups[0]["lr"] == 0.25
    optimizer = nldsl.optimizer("sgd", model.parameters(), lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["momentum"] = 0.5  # decides the code of `sgd`
    refused("NL0968", optimizer.step, "`momentum` of `sgd` decides the code")
    with pytest.raises(TypeError, match="entry `params`"):
        nldsl.optimizer("adamw", [{"param": []}], lr=0.1)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("rule", ["sgd", "rmsprop"])
def test_a_momentum_that_decides_the_code_cannot_be_cycled(rule: str, name: str) -> None:
    model = net()
    optimizer = nldsl.optimizer(rule, model.parameters(), lr=0.05, momentum=0.8)
    assert optimizer.param_groups[0]["momentum"] == 0.8
    SCHEDULERS[name](optimizer)
    before = flat(model)
    backward(model)
    refused("NL0968", optimizer.step, f"`momentum` of `{rule}`", "`cycle_momentum = False`", "`beta`")
    refused("NL0968", copy.deepcopy(optimizer).step, f"`momentum` of `{rule}`")
    assert torch.equal(flat(model), before)
    optimizer.param_groups[0]["momentum"] = 0.8
    optimizer.step()
    assert not torch.equal(flat(model), before)


def test_a_momentum_that_decides_the_code_is_that_of_all_groups_and_states() -> None:
    model, twin = net(), net()
    optimizer = nldsl.optimizer("sgd", model.parameters(), lr=0.05, momentum=0.9)
    assert nldsl.optimizer("sgd", optimizer.param_groups, momentum=0.9, lr=1.0).param_groups[0]["lr"] == 0.05
    other = [{"params": [nn.Parameter(torch.ones(2))], "momentum": 0.5}]
    refused("NL0968", lambda: optimizer.add_param_group(other[0]), "`momentum` of `sgd`")
    assert len(optimizer.param_groups) == 1
    again = nldsl.optimizer("sgd", twin.parameters(), lr=0.1, momentum=0.5)
    refused("NL0969", lambda: again.load_state_dict(optimizer.state_dict()), "`momentum` is 0.9, here 0.5")
    assert again.param_groups[0]["lr"] == 0.1
    old = optimizer.state_dict()
    del old["param_groups"][0]["momentum"]  # as it was saved before it stood there
    optimizer.load_state_dict(old)
    backward(model)
    optimizer.step()


def test_a_list_as_an_argument() -> None:
    text = "rule mine(lr, by = [1, 2]) { for b in by { W = W - b * lr * g } }"
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    nldsl.optimizer(text, [weight], lr=1.0, by=[3, 4]).step()
    assert torch.equal(weight.detach(), torch.full((2,), -7.0))


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "of another shape": (lambda d: d["state"][0].update(m=torch.zeros(9)), "[9], expected [6, 5]"),
    "without a memory": (lambda d: d["state"][1].pop("s"), "`s`"),
    "without a state": (lambda d: d["state"].clear(), "`m`, `s`, `step`"),
    "without a rate": (lambda d: d["param_groups"][0].pop("lr"), "a group lacks `lr`"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_state_that_does_not_fit_changes_nothing(name: str) -> None:
    """A memory of another shape would let a loop in C write beyond its end."""
    model = net()
    optimizer = ours(model)
    backward(model)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    spoilt = copy.deepcopy(saved)
    SPOILT[name][0](spoilt)
    refused("NL0969", lambda: optimizer.load_state_dict(spoilt), SPOILT[name][1])
    now = optimizer.state_dict()
    assert now["param_groups"] == saved["param_groups"]
    assert all(torch.equal(t, now["state"][p][n]) for p, s in saved["state"].items() for n, t in s.items())
    backward(model)
    optimizer.step()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("rule", ["dgd", "dgd_momentum", "normalised_momentum"])
def test_rows_of_layers_computed_again_are_counted_once(rule: str, reentrant: bool) -> None:
    found = []
    for again in (False, True):
        model = net()
        optimizer = nldsl.optimizer(rule, model, lr=0.05)
        for _ in range(3):
            model.zero_grad()
            x = X.clone().requires_grad_()
            y = checkpoint(model, x, use_reentrant=reentrant) if again else model(x)
            (y**2).mean().backward()
            optimizer.step()
        found.append(flat(model))
    assert torch.equal(*found)


def test_names_of_torch_are_told_by_ours() -> None:
    """Decay is not taken by another name, nor left out: it is refused, and the help says its name."""
    weight, ours = nn.Parameter(torch.ones(2, 2)), "did you mean `decay`?"
    optimizer = nldsl.optimizer("adamw", [weight], lr=0.1)
    more = {"params": [nn.Parameter(torch.ones(2, 2))], "weight_decay": 0.1}
    refused("NL0968", lambda: optimizer.add_param_group(more), ours)
    refused("NL0968", lambda: nldsl.optimizer("adamw", [more], lr=0.1), ours)
    refused("NL0306", lambda: nldsl.optimizer("adamw", [weight], lr=0.1, weight_decay=0.1), ours)
    refused("NL0306", lambda: nldsl.optimizer("adamw", [weight], lr=0.1, betas=0.1), "`beta1` and `beta2`?")
    refused("NL0968", lambda: nldsl.optimizer("gd", [more], lr=0.1), "known: lr, every")
