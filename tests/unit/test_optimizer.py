"""`nldsl.optimizer` is a drop-in `torch.optim.Optimizer`: groups, state, schedulers, bad gradients."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.runtime.rule_optimizer import RuleOptimizer

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    made = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    for p in made.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    return made


def backward(model: nn.Module) -> Tensor:
    loss = (model(X) ** 2).mean()
    model.zero_grad()
    loss.backward()
    return loss


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> Tensor:
    for _ in range(count):
        backward(model)
        optimizer.step()
    return flat(model)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def code_of(caught: pytest.ExceptionInfo[SpecError]) -> str:
    return caught.value.diagnostics[0].code


def test_state_is_there_before_the_first_step() -> None:
    model = net()
    optimizer = nldsl.optimizer("adamw", model.parameters(), lr=1e-3)
    assert isinstance(optimizer, torch.optim.Optimizer)
    for p in model.parameters():
        assert set(optimizer.state[p]) == {"step", "m", "s"} and optimizer.state[p]["m"].shape == p.shape
        assert all(isinstance(v, Tensor) for v in optimizer.state[p].values())
    size = sum(t.numel() for s in optimizer.state.values() for n, t in s.items() if n != "step")
    assert size == 2 * flat(model).numel()


@pytest.mark.parametrize("rule", ["adamw(lr = 0.01)", "lookahead(momentum(lr = 0.01), slow = 3)"])
def test_state_dict_round_trip_is_bit_exact(rule: str) -> None:
    whole, half = net(), net()
    expected = steps(whole, nldsl.optimizer(rule, whole.parameters()), 7)
    first = nldsl.optimizer(rule, half.parameters())
    steps(half, first, 4)
    saved = copy.deepcopy(first.state_dict())
    again = nldsl.optimizer(rule, half.parameters())
    again.load_state_dict(saved)
    assert torch.equal(steps(half, again, 3), expected)


def test_a_state_of_another_rule_is_refused() -> None:
    model = net()
    saved = nldsl.optimizer("momentum", model.parameters(), lr=0.1).state_dict()
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer("adamw", model.parameters(), lr=0.1).load_state_dict(saved)
    assert code_of(caught) == "NL0969"


def test_groups_have_arguments_of_their_own() -> None:
    model, twin = net(), net()
    parts = list(model.children())
    optimizer = nldsl.optimizer(
        "adamw",
        [{"params": parts[0].parameters(), "lr": 0.1}, {"params": parts[2].parameters(), "decay": 0.5}],
        lr=0.01,
    )
    others = list(twin.children())
    oracle = torch.optim.AdamW(
        [
            {"params": others[0].parameters(), "lr": 0.1},
            {"params": others[2].parameters(), "weight_decay": 0.5},
        ],
        lr=0.01,
    )
    assert torch.allclose(steps(model, optimizer, 5), steps(twin, oracle, 5), atol=1e-6)


def test_groups_added_later_train_from_then_on() -> None:
    model = net()
    first, last = model[0], model[2]
    optimizer = nldsl.optimizer("adamw", first.parameters(), lr=0.1)
    before = last.weight.detach().clone()
    steps(model, optimizer, 2)
    assert torch.equal(last.weight, before)
    optimizer.add_param_group({"params": list(last.parameters()), "lr": 0.2})
    assert set(optimizer.state[last.weight]) == {"step", "m", "s"}
    steps(model, optimizer, 1)
    assert not torch.equal(last.weight, before) and int(optimizer.state[last.weight]["step"]) == 1


@pytest.mark.parametrize("group", [{"iterations": 3}, {"learning_rate": 0.1}, {"every": 0}])
def test_bad_arguments_of_a_group_are_refused(group: dict[str, Any]) -> None:
    weight = nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer("muon", [{"params": [weight], **group}], lr=0.1)
    assert code_of(caught) == "NL0968"


SCHEDULERS = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(
        o, max_lr=0.1, total_steps=8, cycle_momentum=False
    ),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda e: 1 / (1 + e)),
    "sequential": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3),
            torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ],
        [3],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_torch(name: str) -> None:
    weights = []
    for make in (
        lambda p: nldsl.optimizer("adamw", p, lr=0.05),
        lambda p: torch.optim.AdamW(p, lr=0.05),
    ):
        model = net()
        optimizer = make(list(model.parameters()))
        scheduler = SCHEDULERS[name](optimizer)
        for _ in range(6):
            steps(model, optimizer, 1)
            scheduler.step()
        weights.append(flat(model))
    assert torch.allclose(*weights, atol=1e-6)


def test_the_rate_of_a_rule_in_a_rule_is_called_lr() -> None:
    model = net()
    optimizer = nldsl.optimizer("lookahead(adamw(lr = 0.05))", model.parameters())
    assert optimizer.param_groups[0]["lr"] == 0.05
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["decay"] = 0.0
    assert torch.equal(flat(model), steps(model, optimizer, 2))


def test_closures_run_with_gradients() -> None:
    model = net()
    optimizer = nldsl.optimizer("sgd", model.parameters(), lr=0.01)
    first = optimizer.step(lambda: backward(model)).item()
    assert optimizer.step(lambda: backward(model)).item() < first


def test_clipping_and_accumulation_are_seen() -> None:
    model, twin = net(), net()
    optimizer, oracle = (
        nldsl.optimizer("sgd", model.parameters(), lr=1.0),
        torch.optim.SGD(twin.parameters(), lr=1.0),
    )
    for m, o in ((model, optimizer), (twin, oracle)):
        backward(m)
        (m(2 * X) ** 2).mean().backward()
        nn.utils.clip_grad_norm_(m.parameters(), 0.1)
        o.step()
    assert torch.allclose(flat(model), flat(twin), atol=1e-7)


def test_gradient_scaler() -> None:
    model, twin = net(), net()
    optimizer = nldsl.optimizer("adamw", model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale((model(X) ** 2).mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert torch.allclose(flat(model), steps(twin, torch.optim.AdamW(twin.parameters(), 0.01), 3), atol=1e-6)
    before = flat(model)
    scaler.scale((model(X) ** 2).mean() * float("inf")).backward()
    scaler.step(optimizer)
    assert torch.equal(flat(model), before)


def test_weights_without_gradient_are_left_alone() -> None:
    model = net()
    optimizer = nldsl.optimizer("adamw", model.parameters(), lr=0.1)
    backward(model)
    model[0].weight.grad = None
    before = model[0].weight.detach().clone()
    optimizer.step()
    assert torch.equal(model[0].weight, before) and int(optimizer.state[model[0].weight]["step"]) == 0


def test_bad_gradients_are_named_and_nothing_changes() -> None:
    model = net()
    optimizer = nldsl.optimizer("adamw", model.named_parameters(), lr=0.1)
    steps(model, optimizer, 2)
    backward(model)
    model[2].weight.grad[0, 1] = float("nan")
    before = flat(model)
    with pytest.raises(SpecError) as caught:
        optimizer.step()
    assert code_of(caught) == "NL0967"
    assert "`2.weight` (1 of 18 elements)" in str(caught.value) and "step 3" in str(caught.value)
    assert torch.equal(flat(model), before) and int(optimizer.state[model[0].weight]["step"]) == 2


@pytest.mark.parametrize("policy", ["skip", "zero"])
def test_policies_for_bad_gradients(policy: str) -> None:
    model = net()
    optimizer = nldsl.optimizer("sgd", model.parameters(), lr=0.1, nonfinite=policy)
    backward(model)
    model[0].bias.grad[0] = float("inf")
    before = flat(model)
    with pytest.warns(UserWarning, match="is not finite"):
        optimizer.step()
    assert torch.isfinite(flat(model)).all()
    assert torch.equal(flat(model), before) == (policy == "skip")


def test_huge_but_finite_gradients_pass() -> None:
    weight = nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 3e38)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nldsl.optimizer("sgd", [weight], lr=1e-38).step()
    assert torch.isfinite(weight).all()


def test_sparse_and_complex_are_refused() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = nldsl.optimizer("sgd", table.parameters(), lr=0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(SpecError) as caught:
        optimizer.step()
    assert code_of(caught) == "NL0966"
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer("sgd", [nn.Parameter(torch.zeros(3, dtype=torch.complex64))], lr=0.1)
    assert code_of(caught) == "NL0966"


def test_gathering_sums_the_gradients_of_a_period() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = nldsl.optimizer("sgd", [weight], lr=1.0, every=3)
    for g in (1.0, 2.0, 3.0):
        assert torch.equal(weight.data, torch.zeros(3))
        weight.grad = torch.full((3,), g)
        optimizer.step()
    assert torch.equal(weight.data, torch.full((3,), -6.0))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 2), (2, 3, 2), (2, 2, 3, 2)])
def test_element_wise_rules_take_any_shape(shape: tuple[int, ...]) -> None:
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizer, oracle = nldsl.optimizer("adamw", [ours], lr=0.1), torch.optim.AdamW([theirs], lr=0.1)
    for _ in range(3):
        for p in (ours, theirs):
            p.grad = p.detach() ** 2
        optimizer.step()
        oracle.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_what_a_matrix_rule_cannot_train_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer("muon", net().named_parameters(), lr=0.1)
    assert code_of(caught) == "NL0963" and "`0.bias`" in str(caught.value)


def test_copies_and_pickles_go_on_alike() -> None:
    model = net()
    optimizer = nldsl.optimizer("adamw", model.parameters(), lr=0.1)
    steps(model, optimizer, 2)
    pair = copy.deepcopy((model, optimizer))
    assert isinstance(pair[1], RuleOptimizer)
    assert torch.equal(steps(*pair, 2), steps(model, optimizer, 2))
    assert pickle.loads(pickle.dumps(optimizer.state_dict()))["param_groups"][0]["lr"] == 0.1


def test_rules_from_a_text_and_a_file(tmp_path: Any) -> None:
    text = "rule half(lr) { W = W - 0.5 * lr * g }\n"
    (tmp_path / "half.nl").write_text(text + "rule other(lr) { W = W - 9 * lr * g }\n")
    results = []
    for rule in (text, str(tmp_path / "half.nl"), "gd(lr = 0.05)"):
        model = net()
        arguments = {} if "(lr = " in rule else {"lr": 0.1}
        results.append(steps(model, nldsl.optimizer(rule, model.parameters(), **arguments), 2))
    assert torch.allclose(results[0], results[1]) and torch.allclose(results[0], results[2])


@pytest.mark.parametrize(
    ("rule", "arguments", "code"),
    [
        ("adamm", {"lr": 0.1}, "NL0305"),
        ("adamw", {"lr": 0.1, "beta3": 1.0}, "NL0306"),
        ("adamw", {}, "NL0308"),
        ("rule mine(lr) { W = W - lr * gg }", {"lr": 0.1}, "NL0301"),
        ("map f(z) { return z }", {}, "NL0320"),
    ],
)
def test_mistakes_are_findings(rule: str, arguments: dict[str, float], code: str) -> None:
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer(rule, net().parameters(), **arguments)
    assert code_of(caught) == code


def test_the_source_is_plain_torch_and_reads_like_the_rule() -> None:
    source = nldsl.optimizer("adamw", net().parameters(), lr=0.1).source
    assert "m_1 = beta1 * m + " in source and "torch.optim" not in source
