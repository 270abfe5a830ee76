"""Weights that were lined up for one loop: whatever happens between two steps, the next one is right."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.runtime import native, rule_gradients
from nldsl.runtime.rule_bundle import Numbers
from nldsl.runtime.rule_optimizer import RuleOptimizer

pytestmark = pytest.mark.skipif(not native.compiler(), reason="no C compiler")
SHAPES = [(40, 30), (7,), (), (513, 3), (40, 30)]
Event = Callable[[RuleOptimizer, list[nn.Parameter]], None]


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in SHAPES]


def draw(params: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)


def nothing(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    pass


def one_has_no_gradient(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    params[1].grad = None


def first_has_no_gradient(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    params[0].grad = None


def a_weight_moves(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    params[0].data = params[0].data.clone()


def a_memory_is_replaced(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    state = optimizer.state[params[3]]
    state["m"] = state["m"] * 0.5


def a_state_is_replaced(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.state[params[0]] = {n: t.clone() for n, t in optimizer.state[params[0]].items()}


def a_count_changes(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.state[params[2]]["step"].add_(3)


def a_memory_moves(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    state = optimizer.state[params[1]]
    moment = next(t for name, t in state.items() if name != "step")
    moment.data = torch.full_like(moment, 0.25)


def a_count_moves(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    for p in params:
        count = optimizer.state[p]["step"]
        count.data = count.data + 2


def states_change_owners(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    """The same states in the same order, of other weights."""
    owners, states = list(optimizer.state), list(optimizer.state.values())
    owners[0], owners[4] = owners[4], owners[0]
    optimizer.state.clear()
    optimizer.state.update(zip(owners, states, strict=True))


def memories_change_names(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    """The same memories in the same order, under other names."""
    state = optimizer.state[params[0]]
    first, second = state.pop("m"), state.pop("s")
    state.update(s=first.abs_(), m=second)


def a_user_keeps_things_there(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.state[params[3]].update(seen=torch.tensor(3.0))
    optimizer.state[nn.Parameter(torch.zeros(3))] = {"own": torch.zeros(2)}


def a_state_is_emptied(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.state[params[1]].clear()


def all_states_are_emptied(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.state.clear()


def a_weight_is_another(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    other = nn.Parameter(params[3].detach() + 1)
    other.grad, params[3] = params[3].grad, other
    optimizer.param_groups[0]["params"][3] = other


def a_weight_is_cut(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    """Where it lay, as it lay, and smaller: so are gradient and memories."""
    last = params[3]
    grad, last.grad = last.grad, None
    last.data = last.data[:200]
    assert grad is not None
    last.grad = grad[:200].clone()
    state = optimizer.state[last]
    state.update({n: t[:200] for n, t in state.items() if n != "step"})


def a_weight_is_turned(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    """Same address, another layout."""
    rows, columns = params[0].shape
    params[0].data = params[0].data.reshape(columns, rows).t()


def the_gradient_is_turned(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    assert params[0].grad is not None
    params[0].grad = params[0].grad.T.contiguous().T


def the_rate_changes(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.param_groups[0]["lr"] *= 0.5


def a_weight_leaves(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.param_groups[0]["params"].pop(1)


def weights_change_places(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.param_groups[0]["params"].reverse()


def a_group_comes(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    more = nn.Parameter(torch.ones(9, dtype=torch.float64))
    more.grad = torch.ones(9, dtype=torch.float64)
    optimizer.add_param_group({"params": [more], "lr": 0.5})
    params.append(more)


def the_state_is_loaded(optimizer: RuleOptimizer, params: list[nn.Parameter]) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


EVENTS: list[Event] = [
    nothing,
    one_has_no_gradient,
    first_has_no_gradient,
    a_weight_moves,
    a_memory_is_replaced,
    a_state_is_replaced,
    a_count_changes,
    a_memory_moves,
    a_count_moves,
    states_change_owners,
    memories_change_names,
    a_user_keeps_things_there,
    a_state_is_emptied,
    all_states_are_emptied,
    a_weight_is_another,
    a_weight_is_cut,
    a_weight_is_turned,
    the_gradient_is_turned,
    the_rate_changes,
    a_weight_leaves,
    weights_change_places,
    a_group_comes,
    the_state_is_loaded,
]


APART = (one_has_no_gradient, first_has_no_gradient, a_count_changes, a_state_is_emptied, a_weight_is_another)
"""Behind these not all weights are at one step."""


def run(form: str, event: Event) -> list[torch.Tensor]:
    params = weights()
    optimizer = nldsl.optimizer("adamw", list(params), lr=0.1, form=form)
    for step in range(8):
        draw(params, step)
        if step == 4:
            event(optimizer, params)
        optimizer.step()
    if form == "compiled":
        assert optimizer.lineups or event in APART
    return [p.detach() for p in params] + [t for p in params for t in optimizer.state[p].values()]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: e.__name__)
def test_a_lineup_does_what_torch_does(event: Event) -> None:
    for ours, theirs in zip(run("compiled", event), run("eager", event), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_weights_that_never_have_gradients_are_no_part_of_a_lineup() -> None:
    """Frozen ones, say: the others stay lined up, until one of them has a gradient."""
    found = {}
    for form in ("compiled", "eager"):
        params = weights()
        optimizer = nldsl.optimizer("adamw", list(params), lr=0.1, form=form)
        kept = []
        for step in range(5):
            draw(params, step)
            params[1].grad = None if step < 4 else params[1].grad
            optimizer.step()
            kept += list(optimizer.lineups.values())
        if form == "compiled":
            assert all(lineup is kept[0] and len(lineup.weights) == 4 for lineup in kept[:4])
        assert [float(optimizer.state[p]["step"]) for p in params] == [5, 1, 5, 5, 5]
        found[form] = [*params, *(t for p in params for t in optimizer.state[p].values())]
    for ours, theirs in zip(found["compiled"], found["eager"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("policy", ["raise", "skip", "zero"])
def test_a_bad_gradient_beside_a_weight_without_one_is_named(policy: str) -> None:
    params = weights()
    optimizer = nldsl.optimizer("adamw", list(params), lr=0.1, form="compiled", nonfinite=policy)
    for step in range(3):
        draw(params, step)
        params[1].grad = None
        if step < 2:
            optimizer.step()
    assert params[3].grad is not None
    params[3].grad[5, 1] = float("nan")
    said = r"at step 3 the gradient of parameter 3 of group 0 \(1 of 1539 elements\) is not finite"
    if policy == "raise":
        with pytest.raises(SpecError, match=said):
            optimizer.step()
    else:
        with pytest.warns(UserWarning, match=said):
            optimizer.step()
    assert bool(torch.isfinite(params[3].grad).all()) == (policy == "zero")


@pytest.mark.parametrize("policy", ["raise", "skip", "zero"])
def test_a_bad_gradient_in_a_lineup_is_found_before_anything_changes(policy: str) -> None:
    params = weights()
    optimizer = nldsl.optimizer("adamw", params, lr=0.1, form="compiled", nonfinite=policy)
    for step in range(3):
        draw(params, step)
        optimizer.step()
    before = copy.deepcopy([*params, *(t for s in optimizer.state.values() for t in s.values())])
    draw(params, 3)
    assert params[0].grad is not None
    params[0].grad[20, 3] = float("inf")
    if policy == "raise":
        with pytest.raises(SpecError, match="NL0967.*parameter 0 of group 0 .1 of 1200 elements"):
            optimizer.step()
    else:
        with pytest.warns(UserWarning, match="at step 4"):
            optimizer.step()
    after = [*params, *(t for s in optimizer.state.values() for t in s.values())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) == (policy != "zero")
    assert all(bool(torch.isfinite(t).all()) for t in after)
    draw(params, 3)
    optimizer.step()
    assert int(optimizer.state[params[0]]["step"]) == (5 if policy == "zero" else 4)


def test_a_lineup_whose_gradients_no_loop_can_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler gave a loop for the rule and gives none for the look: torch looks."""
    params = weights()
    optimizer = nldsl.optimizer("adamw", params, lr=0.1, form="compiled")
    draw(params, 0)
    optimizer.step()
    monkeypatch.setattr(rule_gradients, "compiled", lambda *_: None)
    draw(params, 1)
    optimizer.step()
    assert params[0].grad is not None
    params[0].grad[0, 0] = float("nan")
    with pytest.raises(SpecError, match="NL0967"):
        optimizer.step()
    assert int(optimizer.state[params[0]]["step"]) == 2


def test_a_lineup_is_not_pickled_and_a_copy_goes_on_by_itself() -> None:
    params = weights()
    optimizer = nldsl.optimizer("adamw", params, lr=0.1, form="compiled")
    draw(params, 0)
    optimizer.step()
    model = nn.ParameterList(params)
    twin, other = copy.deepcopy((model, optimizer))
    for owner, stepped in ((list(model), optimizer), (list(twin), other)):
        draw(owner, 1)
        stepped.step()
    assert all(torch.equal(a, b) for a, b in zip(model, twin, strict=True))
    assert params[0].data_ptr() != next(iter(twin)).data_ptr()


@pytest.mark.parametrize("rule", ["adamw", "lion", "nadam", "radam", "schedule_free", "sgd"])
@pytest.mark.parametrize("step", [1.0, 7.0, 5000.0])
def test_numbers_are_those_of_torch(rule: str, step: float) -> None:
    optimizer = nldsl.optimizer(rule, [nn.Parameter(torch.zeros(3, 2))], lr=0.1)
    kernel = next(iter(optimizer.kernels.values()))
    numbers = Numbers(kernel, [step, *(float(v) for v in optimizer.arguments.values())])
    for ours, theirs in zip(numbers.plain(), numbers.values(), strict=False):
        assert ours == pytest.approx(float(theirs), rel=1e-14, abs=0.0)


def test_a_number_that_only_torch_has() -> None:
    """The first decay is 1 - 1 ** step = 0: torch divides by it, Python does not."""
    optimizer = nldsl.optimizer("adamw", [nn.Parameter(torch.zeros(3, 2))], lr=0.1)
    kernel = next(iter(optimizer.kernels.values()))
    given = [1.0, *{**optimizer.arguments, "beta1": 1.0}.values()]
    assert float("inf") in list(Numbers(kernel, given).plain())
