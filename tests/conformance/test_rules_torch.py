"""Rules of the library against `torch.optim`, in float64, on a small net with matrices and vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nldsl

STEPS = 50
INPUT, TARGET = (
    torch.randn(16, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (5, 3)
)


def net() -> nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    made = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    for p in made.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return made


def trained(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], steps: int = STEPS) -> Tensor:
    model = net()
    optimizer = make(list(model.parameters()))
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(INPUT) - TARGET) ** 2).mean().backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


optim = torch.optim
CASES: list[tuple[str, dict[str, Any], Callable[[list[nn.Parameter]], torch.optim.Optimizer]]] = [
    ("gd", {"lr": 0.1}, lambda p: optim.SGD(p, 0.1)),
    ("sgd", {"lr": 0.1}, lambda p: optim.SGD(p, 0.1)),
    ("sgd", {"lr": 0.05, "decay": 0.1}, lambda p: optim.SGD(p, 0.05, weight_decay=0.1)),
    ("sgd", {"lr": 0.05, "momentum": 0.8}, lambda p: optim.SGD(p, 0.05, 0.8)),
    (
        "sgd",
        {"lr": 0.05, "momentum": 0.8, "decay": 0.1, "dampening": 0.3},
        lambda p: optim.SGD(p, 0.05, 0.8, 0.3, 0.1),
    ),
    (
        "sgd",
        {"lr": 0.05, "momentum": 0.8, "decay": 0.1, "nesterov": True},
        lambda p: optim.SGD(p, 0.05, 0.8, 0, 0.1, True),
    ),
    ("momentum", {"lr": 0.05, "beta": 0.8}, lambda p: optim.SGD(p, 0.05, 0.8)),
    ("nesterov", {"lr": 0.05, "beta": 0.8}, lambda p: optim.SGD(p, 0.05, 0.8, nesterov=True)),
    ("adagrad", {"lr": 0.1}, lambda p: optim.Adagrad(p, 0.1)),
    (
        "adagrad",
        {"lr": 0.1, "lr_decay": 0.2, "decay": 0.1, "initial": 0.3, "eps": 1e-3},
        lambda p: optim.Adagrad(p, 0.1, 0.2, 0.1, 0.3, 1e-3),
    ),
    ("rmsprop", {"lr": 0.02}, lambda p: optim.RMSprop(p, 0.02)),
    (
        "rmsprop",
        {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "decay": 0.1, "momentum": 0.7, "centered": True},
        lambda p: optim.RMSprop(p, 0.02, 0.9, 1e-3, 0.1, 0.7, True),
    ),
    ("adam", {"lr": 0.05}, lambda p: optim.Adam(p, 0.05)),
    (
        "adam",
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "decay": 0.1},
        lambda p: optim.Adam(p, 0.05, (0.8, 0.95), 1e-3, 0.1),
    ),
    ("adamw", {"lr": 0.05}, lambda p: optim.AdamW(p, 0.05)),
    (
        "adamw",
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "decay": 0.2},
        lambda p: optim.AdamW(p, 0.05, (0.8, 0.95), 1e-3, 0.2),
    ),
    ("amsgrad", {"lr": 0.05}, lambda p: optim.Adam(p, 0.05, amsgrad=True)),
    (
        "amsgrad",
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "decay": 0.1},
        lambda p: optim.Adam(p, 0.05, (0.8, 0.95), 1e-3, 0.1, True),
    ),
    ("nadam", {"lr": 0.01}, lambda p: optim.NAdam(p, 0.01)),
    (
        "nadam",
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "decay": 0.1, "momentum_decay": 0.02},
        lambda p: optim.NAdam(p, 0.05, (0.8, 0.95), 1e-3, 0.1, 0.02),
    ),
    (
        "nadam",
        {"lr": 0.01, "decay": 0.1, "decoupled": True},
        lambda p: optim.NAdam(p, 0.01, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    ("radam", {"lr": 0.05}, lambda p: optim.RAdam(p, 0.05)),
    (
        "radam",
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "decay": 0.1},
        lambda p: optim.RAdam(p, 0.05, (0.8, 0.95), 1e-3, 0.1),
    ),
    (
        "radam",
        {"lr": 0.05, "decay": 0.1, "decoupled": True},
        lambda p: optim.RAdam(p, 0.05, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    (
        "adafactor",
        {"lr": 0.05, "eps1": torch.finfo(torch.float64).eps},
        lambda p: optim.Adafactor(p, 0.05),
    ),
    (
        "adafactor",
        {"lr": 0.5, "beta2_decay": -0.6, "eps1": 1e-4, "eps2": 1e-2, "d": 1.3, "decay": 0.1},
        lambda p: optim.Adafactor(p, 0.5, -0.6, (1e-4, 1e-2), 1.3, 0.1),
    ),
]


@pytest.mark.parametrize(
    ("rule", "arguments", "make"), CASES, ids=[f"{r}-{i}" for i, (r, _, _) in enumerate(CASES)]
)
def test_equal_to_torch(rule: str, arguments: dict[str, Any], make: Any) -> None:
    ours = trained(lambda p: nldsl.optimizer(rule, p, **arguments))
    torch.set_default_dtype(torch.float64)  # else torch keeps the running product of NAdam in float32
    try:
        theirs = trained(make)
    finally:
        torch.set_default_dtype(torch.float32)
    error = float((ours - theirs).abs().max())
    assert error <= 1e-12, error


def test_the_comparison_can_fail() -> None:
    ours = trained(lambda p: nldsl.optimizer("adamw", p, lr=0.05, eps=1e-7))
    assert (ours - trained(lambda p: optim.AdamW(p, 0.05))).abs().max() > 1e-12


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (48, 48)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_direction_of_muon(shape: tuple[int, int], nesterov: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
    optimizer = nldsl.optimizer("muon", [ours], lr=0.1, nesterov=nesterov)
    oracle = optim.Muon([theirs], lr=0.1, weight_decay=0.0, nesterov=nesterov)
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        before = ours.detach().clone(), theirs.detach().clone()
        optimizer.step()
        oracle.step()
        steps = [(p - b).flatten() for p, b in zip((ours, theirs), before, strict=True)]
        assert torch.cosine_similarity(*steps, dim=0) >= 0.999
