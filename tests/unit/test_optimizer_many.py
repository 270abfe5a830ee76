"""Few elements: torch takes the weights of a rule by lists, and after some steps they have a loop in C."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.runtime import native, rule_bundle, rule_gradients, rule_many
from nldsl.runtime.rule_kernel import Kernel
from nldsl.runtime.rule_numbers import Numbers

SHAPES: tuple[tuple[int, ...], ...] = ((5, 7), (7,), (), (2, 3, 4, 3), (5, 7))
EVERYTHING = (
    "rule everything(lr = 0.1) { memory m = like(W); memory n = like(step)\n"
    "n = 0.5 * n + step\n"
    "m = maximum(m, sigmoid(g)) - tanh(g) ** 2 + where(g > 0, 1 / (1 + abs(g)), exp(-g ** 2)) * n\n"
    "W = W - lr * (sign(m) + 2 ** m / (3 - n) + silu(g) + minimum(g, 0.5) - sqrt(abs(W)) * erf(g)) }"
)
RULES = [
    EVERYTHING,
    "adamw(lr = 0.01)",
    "nadam(lr = 0.01)",
    "schedule_free(lr = 0.01, warmup = 4)",
    "lookahead(sgd(lr = 0.01, momentum = 0.9), slow = 3)",
]


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def trained(rule: str, dtype: torch.dtype, together: bool) -> list[Tensor]:
    weights = [nn.Parameter(drawn(shape, i, dtype)) for i, shape in enumerate(SHAPES)]
    ready = [
        nldsl.optimizer(rule, ws, form="eager") for ws in ([weights] if together else [[w] for w in weights])
    ]
    for step in range(9):
        for i, w in enumerate(weights):
            w.grad = drawn(tuple(w.shape), 50 * i + step, dtype)
        for optimizer in ready:
            optimizer.step()
    kept = [v for optimizer in ready for s in optimizer.state.values() for v in s.values()]
    return [*(w.detach() for w in weights), *kept]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.partition("(")[0])
@pytest.mark.parametrize("small", [0, rule_many.SMALL], ids=["lists", "vectors"])
def test_together_is_one_by_one(
    small: int, rule: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_many, "SMALL", small)
    loose = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 0.0}[dtype]
    for ours, theirs in zip(trained(rule, dtype, True), trained(rule, dtype, False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=loose, atol=loose)


def test_where_small_weights_lie_changes_nothing() -> None:
    """Transposed, every second column, channels last, an empty one: what is made one vector goes back."""
    lying = [
        drawn((6, 4), 1, torch.float64).t(),
        drawn((6, 8), 2, torch.float64)[:, ::2],
        drawn((3, 2, 4, 5), 3, torch.float64).to(memory_format=torch.channels_last),
        torch.zeros(0, 3, dtype=torch.float64),
    ]
    found = [[nn.Parameter(x.clone()) for x in lying], [nn.Parameter(torch.empty(0)) for _ in lying]]
    for weight, x in zip(found[1], lying, strict=True):
        weight.data = x
    for weights in found:
        ready = nldsl.optimizer("adamw(lr = 0.1)", weights, form="eager")
        for step in range(3):
            for w in weights:
                w.grad = drawn(tuple(w.shape), step, torch.float64)
            ready.step()
    for plain, odd in zip(*found, strict=True):
        torch.testing.assert_close(plain.detach(), odd.detach(), rtol=1e-13, atol=1e-13)


def test_lists_are_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call for all weights, and several where they are large; half precision is taken one by one."""
    seen: list[int] = []
    update = rule_many.update_many

    def noted(kernel: Kernel, rows: Any, numbers: Any) -> None:
        seen.append(len(list(rule_many._parts(rows))))
        update(kernel, rows, numbers)

    monkeypatch.setattr(rule_bundle, "update_many", noted)
    trained("adamw(lr = 0.01)", torch.float32, True)
    assert seen == [1] * 9
    monkeypatch.setattr(rule_many, "MOST", 40)
    trained("adamw(lr = 0.01)", torch.float32, True)
    assert seen[9:] == [4] * 9  # 35, 7 + 1, 72, 35 elements
    trained("adamw(lr = 0.01)", torch.bfloat16, True)
    assert len(seen) == 18


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))


def run(model: nn.Module, ready: Any, steps: range) -> None:
    for step in steps:
        ready.zero_grad()
        model(drawn((4, 6), step, torch.float32)).square().sum().backward()
        ready.step()


@pytest.mark.skipif(not native.compiler(), reason="no C compiler")
@pytest.mark.parametrize("stop", [3, 7, 12])
def test_a_loop_is_compiled_after_some_steps_and_a_resumed_run_does_the_same(
    stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_bundle, "MANY", 4 * 7)  # four weights: from the eighth step on
    whole, first = net(), net()
    ready = nldsl.optimizer("adamw", whole, lr=0.01)
    run(whole, ready, range(7))
    assert {form for form, _ in ready.forms().values()} == {"compiled"}
    assert not ready.lineups
    run(whole, ready, range(7, 15))
    assert ready.lineups
    begun = nldsl.optimizer("adamw", first, lr=0.01)
    assert {form for form, _ in begun.forms().values()} == {"eager"}
    assert "before step 7" in next(reason for _, reason in begun.forms().values())
    run(first, begun, range(stop))
    file = io.BytesIO()
    torch.save((first.state_dict(), begun.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file)
    second = net()
    second.load_state_dict(weights)
    goes_on = nldsl.optimizer("adamw", second, lr=0.01)
    goes_on.load_state_dict(state)
    run(second, goes_on, range(stop, 15))
    for ours, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_numbers_by_python_are_those_by_torch() -> None:
    for rule in (
        "nadam(lr = 0.1)",
        "radam(lr = 0.1)",
        "schedule_free(lr = 0.1, warmup = 3)",
        "adafactor(lr = 0.1)",
    ):
        made = nldsl.optimizer(rule, [nn.Parameter(torch.zeros(4, 3))])
        (kernel,) = made.kernels.values()
        for step in (1.0, 2.0, 7.0, 5000.0):
            numbers = Numbers(kernel, [step, *(made.param_groups[0][n] for n in made.arguments)])
            assert numbers._by_python() is not None
            for ours, theirs in zip(numbers.floats(), numbers.values(), strict=True):
                assert math.isclose(ours, float(theirs), rel_tol=1e-13, abs_tol=1e-15)


def test_numbers_that_python_refuses_are_those_of_torch() -> None:
    """A root of what is negative is no number for torch, and an error for Python."""
    (kernel,) = nldsl.optimizer(
        "rule bare(lr) { W = W - sqrt(lr) * g }", [nn.Parameter(torch.zeros(3))], lr=0.1
    ).kernels.values()
    assert [math.isnan(n) for n in Numbers(kernel, [1.0, -1.0]).floats()] == [True]


def test_few_gradients_are_looked_at_by_their_norms() -> None:
    good = [torch.ones(3), torch.full((2,), 3e38), torch.ones(2, dtype=torch.bfloat16)]
    assert rule_gradients.all_finite(good)
    assert not rule_gradients.all_finite([*good, torch.tensor([1.0, math.inf])])
    assert not rule_gradients.all_finite([*good, torch.tensor(math.nan)])
    assert rule_gradients.all_finite([]) and rule_gradients.all_finite([torch.zeros(0)])
