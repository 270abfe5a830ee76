"""What users do to the state of an optimizer and to its weights: it goes on, or it is said what is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.runtime.rule_optimizer import RuleOptimizer

FORMS = ["eager", "compiled"]


def made(form: str, rule: str = "adamw", **settings: Any) -> tuple[RuleOptimizer, list[nn.Parameter]]:
    """An optimizer of two weights behind two steps."""
    params = [nn.Parameter(drawn((30, 20), 1)), nn.Parameter(drawn((7,), 2))]
    optimizer = nldsl.optimizer(rule, list(params), form=form, lr=1e-2, **settings)
    for step in range(2):
        draw(params, step)
        optimizer.step()
    return optimizer, params


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draw(params: list[nn.Parameter], step: int) -> None:
    for number, p in enumerate(params):
        p.grad = drawn(tuple(p.shape), 100 * number + step)


def cut(optimizer: RuleOptimizer, p: nn.Parameter) -> None:
    """Where it lay, and smaller: a loop in C would go on beyond its end."""
    p.data = p.data[:10]


def grow(optimizer: RuleOptimizer, p: nn.Parameter) -> None:
    p.data = torch.zeros(50, 20, dtype=torch.float64)


def put_less(optimizer: RuleOptimizer, p: nn.Parameter) -> None:
    optimizer.state[p]["m"] = torch.zeros(3, dtype=torch.float64)


def cut_memory(optimizer: RuleOptimizer, p: nn.Parameter) -> None:
    memory = optimizer.state[p]["m"]
    memory.data = memory.data[:10]


def take_away(optimizer: RuleOptimizer, p: nn.Parameter) -> None:
    del optimizer.state[p]["m"]


def put_a_word(optimizer: RuleOptimizer, p: nn.Parameter) -> None:
    optimizer.state[p]["m"] = "zero"


def count_a_word(optimizer: RuleOptimizer, p: nn.Parameter) -> None:
    optimizer.state[p]["step"] = "two"


def elsewhere(optimizer: RuleOptimizer, p: nn.Parameter) -> None:
    optimizer.state[p]["m"] = torch.zeros(p.shape, device="meta", dtype=p.dtype)


WRONG: list[tuple[Callable[[RuleOptimizer, nn.Parameter], None], str]] = [
    (cut, "`m` in the state of parameter 0 of group 0 is [30, 20], expected a tensor [10, 20]"),
    (grow, "`m` in the state of parameter 0 of group 0 is [30, 20], expected a tensor [50, 20]"),
    (put_less, "is [3], expected a tensor [30, 20]"),
    (cut_memory, "is [10, 20], expected a tensor [30, 20]"),
    (take_away, "`m` in the state of parameter 0 of group 0 is missing"),
    (put_a_word, "is `'zero'`, expected a tensor"),
    (count_a_word, "`step` in the state of parameter 0 of group 0 is `'two'`, expected a number"),
    (elsewhere, "is on meta, the weight on cpu"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("event", "said"), WRONG, ids=[event.__name__ for event, _ in WRONG])
def test_what_does_not_fit_is_said_before_anything_changes(
    event: Callable[[RuleOptimizer, nn.Parameter], None], said: str, form: str
) -> None:
    optimizer, params = made(form)
    event(optimizer, params[0])
    for p in params:
        p.grad = None
    draw(params, 2)
    before = [p.detach().clone() for p in params], float(optimizer.state[params[1]]["step"])
    with pytest.raises(SpecError) as caught:
        optimizer.step()
    finding = caught.value.diagnostics[0]
    assert finding.code == "NL0969" and said in finding.message and finding.help
    assert all(torch.equal(p, old) for p, old in zip(params, before[0], strict=True))
    assert float(optimizer.state[params[1]]["step"]) == before[1]
    optimizer.state[params[0]].clear()
    optimizer.step()
    assert float(optimizer.state[params[0]]["step"]) == 1 and optimizer.state[params[0]]["m"].any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("every", [1, 2])
def test_a_gradient_of_another_shape_is_refused(form: str, every: int) -> None:
    optimizer, params = made(form, every=every)
    draw(params, 2)
    params[0].data = params[0].data[:10]
    with pytest.raises(
        SpecError, match=r"NL0966.*parameter 0 of group 0 is \[30, 20\], the weight \[10, 20\]"
    ):
        optimizer.step()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("new", [5, 5.0, torch.tensor(5), torch.tensor(5.0, dtype=torch.float64)])
def test_a_count_of_another_type_is_the_count_it_says(new: Any, form: str) -> None:
    """Eight bytes read as four would be the count of a new weight."""
    optimizer, params = made(form)
    other, theirs = made(form)
    for p, q in zip(params, theirs, strict=True):
        optimizer.state[p]["step"] = new if not isinstance(new, torch.Tensor) else new.clone()
        other.state[q]["step"].fill_(5)
    for owner, own in ((optimizer, params), (other, theirs)):
        draw(own, 2)
        owner.step()
    assert all(torch.equal(p, q) for p, q in zip(params, theirs, strict=True))
    assert all(float(optimizer.state[p]["step"]) == 6 for p in params)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", ["adamw", "schedule_free", "adafactor", "deep_momentum"])
def test_an_emptied_state_starts_afresh_as_in_torch(rule: str, form: str) -> None:
    if rule != "adamw" and form == "compiled":
        form = "auto"
    optimizer, params = made(form, rule)
    optimizer.state = defaultdict(dict)
    new = nldsl.optimizer(
        rule, theirs := [nn.Parameter(p.detach().clone()) for p in params], form=form, lr=1e-2
    )
    for owner, own in ((optimizer, params), (new, theirs)):
        draw(own, 2)
        owner.step()
    assert all(torch.equal(p, q) for p, q in zip(params, theirs, strict=True))
    assert list(optimizer.state_dict()["state"][0]) == list(new.state_dict()["state"][0])


def test_a_bad_gradient_of_a_weight_without_a_state_is_named() -> None:
    optimizer, params = made("eager")
    optimizer.state.clear()
    draw(params, 2)
    assert params[1].grad is not None
    params[1].grad[3] = float("nan")
    with pytest.raises(SpecError, match="NL0967.: at step 1 the gradient of parameter 1"):
        optimizer.step()


def test_a_refused_form_changes_nothing() -> None:
    """The second weight has no loop, the first one was not updated for it."""
    text = """rule own(lr = 1) {
      if rank(W) == 2 { n = sum(sum(g ** 2)) } else { n = sum(g ** 2) }
      W = W - lr * g / n
    }"""
    params = [nn.Parameter(drawn((3, 4), 1)), nn.Parameter(drawn((2, 3, 4), 2))]
    optimizer = nldsl.optimizer(text + "\n", params, form="compiled")
    before = [p.detach().clone() for p in params]
    draw(params, 0)
    with pytest.raises(SpecError, match="NL0968.*a stack of matrices"):
        optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))
    assert [float(optimizer.state[p]["step"]) for p in params] == [0, 0]
