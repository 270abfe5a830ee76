"""Rules of the library against printed recurrences; every rule descends two functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.assets import specs_folder
from tests.conformance import rule_recurrences as R

SHAPES = {"matrix": [(5, 3), (3, 5), (4, 4)], "any": [(5, 3), (3, 5), (6,)]}
CASES: list[tuple[str, dict[str, Any], R.Recurrence, str]] = [
    ("lion", {"lr": 0.01, "decay": 0.1}, R.lion(0.01, decay=0.1), "any"),
    ("signsgd", {"lr": 0.01}, R.signum(0.01, 0.0), "any"),
    ("signsgd", {"lr": 0.01, "beta": 0.8}, R.signum(0.01, 0.8), "any"),
    ("muon", {"lr": 0.02}, R.muon(0.02, 0.95, True), "matrix"),
    ("muon", {"lr": 0.02, "nesterov": False, "decay": 0.1}, R.muon(0.02, 0.95, False, 0.1), "matrix"),
    ("adamuon", {"lr": 0.02, "beta": 0.9, "decay": 0.1}, R.adamuon(0.02, 0.9, 0.1), "matrix"),
    ("m3", {"lr": 0.02, "slow": 4, "alpha": 0.3}, R.m3(0.02, 0.95, 0.95, 0.95, 0.3, 4), "matrix"),
    ("m3_ema", {"lr": 0.02, "slow": 4}, R.m3_ema(0.02, 0.95, 0.999, 0.95, 0.5, 4), "matrix"),
    ("shampoo", {"lr": 0.02}, R.shampoo(0.02, 0.0, 1e-4, 1), "any"),
    ("shampoo", {"lr": 0.02, "beta": 0.9, "slow": 3}, R.shampoo(0.02, 0.9, 1e-4, 3), "any"),
    ("soap", {"lr": 0.02, "slow": 3, "decay": 0.1}, R.soap(0.02, 0.95, 0.95, 3, 0.1), "any"),
    ("ademamix", {"lr": 0.02, "decay": 0.1}, R.ademamix(0.02, 0.9999, 5, 0, 0.1), "any"),
    ("ademamix", {"lr": 0.02, "warmup": 12}, R.ademamix(0.02, 0.9999, 5, 12, 0.0), "any"),
    ("schedule_free", {"lr": 0.02}, R.schedule_free(0.02, 0.9, 0.999, 0.0, 0), "any"),
    (
        "schedule_free",
        {"lr": 0.02, "decay": 0.1, "warmup": 7},
        R.schedule_free(0.02, 0.9, 0.999, 0.1, 7),
        "any",
    ),
    ("feature_momentum", {"lr": 0.01, "cubic": 0.3}, R.feature_momentum(0.01, 0.9, 0.3), "any"),
    (
        "nonlinear_momentum",
        {"lr": 0.01, "size": 0.05},
        R.nonlinear_momentum(0.01, 0.9, lambda m: 0.05 * (m / 0.05).tanh()),
        "any",
    ),
    (
        "nonlinear_momentum",
        {"lr": 0.01, "size": 0.05, "sigma": "sign"},
        R.nonlinear_momentum(0.01, 0.9, lambda m: 0.05 * m.sign()),
        "any",
    ),
    (
        "nonlinear_momentum",
        {"lr": 0.01, "size": 0.05, "sigma": "orthogonalize"},
        R.nonlinear_momentum(0.01, 0.9, lambda m: 0.05 * R.newton_schulz(m)),
        "matrix",
    ),
    ("delta_momentum", {"lr": 0.01, "beta": 0.8}, R.delta_momentum(0.01, 0.8), "matrix"),
    (
        "delta_momentum",
        {"lr": 0.05, "rate": "proximal"},
        R.delta_momentum(0.05, 0.9, True),
        "matrix",
    ),
    ("learned_preconditioner", {"lr": 0.02}, R.learned_preconditioner(0.02, 0.5), "any"),
    (
        "lookahead(lion(lr = 0.01), slow = 3, mix = 0.25)",
        {},
        R.lookahead(R.lion(0.01), 3, 0.25),
        "any",
    ),
    ("lookahead(muon(lr = 0.01), slow = 3)", {}, R.lookahead(R.muon(0.01, 0.95, True), 3, 0.5), "matrix"),
]


@pytest.mark.parametrize(
    ("rule", "arguments", "recurrence", "takes"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_equal_to_the_printed_recurrence(
    rule: str, arguments: dict[str, Any], recurrence: R.Recurrence, takes: str
) -> None:
    """Gradients of a quadratic whose minimum moves: 25 steps, relative to the size of the weights."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    weights = [nn.Parameter(draw(shape)) for shape in SHAPES[takes]]
    twins = [(w.detach().clone(), R.State()) for w in weights]
    optimizer = nldsl.optimizer(rule, weights, **arguments)
    for t in range(1, 26):
        for i, w in enumerate(weights):
            w.grad = w.detach() - draw(w.shape)
            twin, state = twins[i]
            twins[i] = recurrence(twin, w.grad.clone(), state, t), state
        optimizer.step()
        for w, (twin, _) in zip(weights, twins, strict=True):
            torch.testing.assert_close(w.detach(), twin, rtol=1e-9, atol=1e-11)


def test_deep_momentum_trains_its_network() -> None:
    """Eq. 50: the network is trained on its own objective, by autograd here, and W' = W + m(g)."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64))
    optimizer = nldsl.optimizer("deep_momentum", [("w", weight)], lr=0.02, beta=0.95)
    net = {n: optimizer.state[weight][f"m_{n}"].clone() for n in ("W2", "W1")}
    assert all(float(w.abs().max()) > 0 for w in net.values())

    def answer(w: dict[str, Tensor], rows: Tensor) -> Tensor:
        return rows + nn.functional.silu(rows @ w["W2"].T) @ w["W1"].T

    expected = weight.detach().clone()
    for _ in range(10):
        g = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        slope = torch.func.grad(lambda w, g=g: -answer(w, g).sum())(net)
        net = {n: 0.95 * w - 0.02 * slope[n] for n, w in net.items()}
        expected = expected + answer(net, g)
        weight.grad = g
        optimizer.step()
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-10, atol=1e-10)


RATES: dict[str, dict[str, Any]] = {
    "adafactor": {"lr": 0.1},
    "adagrad": {"lr": 0.3},
    "ademamix": {"lr": 0.01, "alpha": 1, "beta3": 0.99},
    "delta_momentum": {"lr": 2e-5, "beta": 0.5},
    "feature_momentum": {"lr": 1e-4, "cubic": 1e-4},
    "gd": {"lr": 1e-3},
    "learned_preconditioner": {"lr": 0.01},
    "lion": {"lr": 0.01},
    "lookahead": {"inner": "adamw(lr = 0.02, decay = 0)"},
    "m3": {"lr": 3},
    "m3_ema": {"lr": 3},
    "momentum": {"lr": 2e-4},
    "muon": {"lr": 0.01},
    "nesterov": {"lr": 2e-4},
    "nonlinear_momentum": {"lr": 1e-4},
    "radam": {"lr": 1e-3},
    "schedule_free": {"lr": 0.05},
    "sgd": {"lr": 1e-3},
    "shampoo": {"lr": 0.3},
    "signsgd": {"lr": 5e-3},
}
"""Rates that suit Rosenbrock's function from (-1, 1.5), where gradients start at 200; 0.02 for the others."""
GENTLE = {
    "delta_momentum": {"lr": 5e-4, "beta": 0.5},
    "m3_ema": {"lr": 0.3},
    "radam": {"lr": 0.02},
    "signsgd": {"lr": 0.01},
}
"""Rates for the quadratic, where they differ."""
ELSEWHERE = {"dgd", "proximal", "deep_momentum", "dgd_momentum", "normalised_momentum"}
"""Rules that are tested on what they are for: they look at inputs, or answer before they have learned."""
ELSEWHERE |= {"mirror_norm", "mirror_softmax"}
"""Rules whose weights stay in a set of their own (a ball, a simplex), where these minima are not."""
RULES = sorted(p.stem for p in (specs_folder() / "rules").glob("*.nl"))


def call(rule: str, gentle: bool) -> str:
    given = GENTLE[rule] if gentle and rule in GENTLE else RATES.get(rule, {"lr": 0.02})
    return f"{rule}({', '.join(f'{n} = {v}' for n, v in given.items())})"


def quadratic(w: Tensor) -> Tensor:
    """An ellipse around (1, 2) with axes 1 and 10, turned."""
    x, y = w.flatten() - torch.tensor([1.0, 2.0], dtype=w.dtype)
    return 0.5 * (x + y) ** 2 + 5 * (x - y) ** 2


def rosenbrock(w: Tensor) -> Tensor:
    x, y = w.flatten()
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


@pytest.mark.parametrize("function", [quadratic, rosenbrock], ids=lambda f: f.__name__)
@pytest.mark.parametrize("rule", [r for r in RULES if r not in ELSEWHERE])
def test_every_rule_descends(rule: str, function: Any) -> None:
    weight = nn.Parameter(torch.tensor([[-1.0], [1.5]], dtype=torch.float64))
    optimizer = nldsl.optimizer(call(rule, function is quadratic), [weight])
    start, values = function(weight).item(), []
    for _ in range(300):
        optimizer.zero_grad()
        loss = function(weight)
        loss.backward()
        values.append(loss.item())
        optimizer.step()
    # The valley of Rosenbrock's function starts at 4 and is slow from there.
    # Nothing in `m3` forgets (reading P12): it swings around the minimum without friction.
    best, wanted = (
        min(values if rule == "m3" else values[-20:]),
        5.0 if function is rosenbrock else 0.1 * start,
    )
    assert best < wanted < start, (rule, start, best)
