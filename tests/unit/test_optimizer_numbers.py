"""Numbers an optimizer cannot work with are refused before anything is changed; clocks may change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nldsl
from nldsl import SpecError
from nldsl.review import check
from nldsl.runtime.rule_optimizer import RuleOptimizer

OWN = "rule own(lr, beta = 2) { memory m = like(W); m = beta * m + g; W = W - lr * m }\n"


def refused(call: Any) -> str:
    with pytest.raises(SpecError) as caught:
        call()
    (found, *_) = caught.value.diagnostics
    return f"{found.code} {found.message}"


def weight(size: int = 3) -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1.0, 1.0, size))


@pytest.mark.parametrize(
    ("rule", "given", "said"),
    [
        ("adamw", {"lr": -1}, "NL0426 `lr` is a rate: from 0, found -1"),
        ("adamw", {"lr": math.nan}, "NL0968 `lr` is no value of the language: nan"),
        ("adamw", {"lr": -math.inf}, "NL0968 `lr` is no value of the language: -inf"),
        ("adamw", {"lr": None}, "NL0968 `lr` is no value of the language: None"),
        ("adamw", {"lr": "0.1"}, "NL0404 `lr` of `adamw` must be a number, found the string"),
        ("adamw", {"lr": True}, "NL0404 `lr` of `adamw` must be a number, found `true`"),
        (
            "adamw",
            {"lr": 0.1, "beta1": 1},
            "NL0426 `beta1` is the share of an average: from 0 to below 1, found 1",
        ),
        ("adamw", {"lr": 0.1, "beta2": -0.1}, "NL0426 `beta2` is the share"),
        ("adamw", {"lr": 0.1, "eps": -1e-8}, "NL0426 `eps`"),
        ("adamw", {"lr": 0.1, "decay": -0.1}, "NL0426 `decay`"),
        ("sgd", {"lr": 0.1, "momentum": -0.1}, "NL0426 `momentum`"),
        ("lookahead(adamw(lr = -0.1))", {}, "NL0426 `lr` is a rate"),
        ("lion", {"lr": 0.1, "beta2": 1.5}, "NL0426 `beta2`"),
        ("sgd", {"lr": 0.1, "form": "fast"}, "NL0968 `form` is one of"),
        ("sgd", {"lr": 0.1, "nonfinite": "no"}, "NL0968 `nonfinite` is one of"),
        ("sgd", {"lr": 0.1, "seed": "x"}, "NL0968 `seed` is a whole number"),
    ],
)
def test_a_number_of_no_use_is_refused(rule: str, given: dict[str, Any], said: str) -> None:
    assert refused(lambda: nldsl.optimizer(rule, [weight()], **given)).startswith(said)


@pytest.mark.parametrize("rule", ["adamw", "lookahead(adamw(lr = 'x'))".replace("'", '"')])
def test_an_argument_that_is_no_number_is_told_once_with_help(rule: str) -> None:
    with pytest.raises(SpecError) as caught:
        nldsl.optimizer(rule, [weight()], **({"lr": "x"} if rule == "adamw" else {}))
    (found,) = caught.value.diagnostics
    assert found.message == '`lr` of `adamw` must be a number, found the string "x"'
    assert found.help == "for example `lr = 0.1`"


def test_numbers_of_other_libraries_are_numbers() -> None:
    for rate in (torch.tensor(0.5), np.float64(0.5), np.float32(0.5), 0.5):
        made = nldsl.optimizer("sgd", [weight()], lr=rate)
        assert made.param_groups[0]["lr"] == 0.5
    assert nldsl.optimizer("m3", [nn.Parameter(torch.ones(2, 2))], lr=0.1, slow=np.int64(3)).fixed


def test_a_beta_that_is_no_average_is_free() -> None:
    assert nldsl.optimizer(OWN, [weight()], lr=0.0, beta=3).param_groups[0]["beta"] == 3


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, "0.1", True, None, torch.tensor(-1.0)])
@pytest.mark.parametrize("size", [3, 1 << 16])
def test_a_bad_number_in_a_group_stops_the_step_before_it_begins(bad: object, size: int) -> None:
    p, q = weight(size), weight(size)
    made = nldsl.optimizer("adamw", [{"params": [p]}, {"params": [q]}], lr=0.1)
    for _ in range(2):
        p.grad, q.grad = torch.ones(size), torch.ones(size)
        made.step()
    kept = [t.clone() for t in (p.data, q.data, *made.state[p].values(), *made.state[q].values())]
    made.param_groups[0]["lr"] = bad
    assert refused(made.step).startswith("NL0968 `lr` is")
    now = [p.data, q.data, *made.state[p].values(), *made.state[q].values()]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    assert refused(lambda: made.add_param_group({"params": [weight()], "lr": bad})).startswith(
        "NL0968 `lr` is"
    )


def test_check_names_the_place_in_a_train_section() -> None:
    text = "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\ntrain m { rest by adamw(lr = %s) }\n"
    (found,) = check(text % "-0.1")
    assert found.code == "NL0426" and found.span is not None and found.span.text == "lr = -0.1" and found.help
    (found,) = check(text % "cosine(-0.1, warmup = 5)")
    assert found.code == "NL0426"
    assert check(text % "0") == []


def run(every: list[int], gradients: list[Tensor], size: int) -> tuple[nn.Parameter, RuleOptimizer]:
    p = weight(size)
    made = nldsl.optimizer("adamw", [p], lr=0.1, every=every[0])
    for clock, g in zip(every, gradients, strict=True):
        made.param_groups[0]["every"] = clock
        p.grad = g.clone()
        made.step()
    return p, made


@pytest.mark.parametrize("size", [3, 1 << 16])
def test_the_clock_of_a_group_may_change(size: int) -> None:
    g = [torch.full((size,), float(n + 1)) for n in range(7)]
    # Three steps of one, one of two, one of three whose clock is made fast in its last step.
    p, made = run([1, 1, 1, 2, 2, 3, 1], g, size)
    want, other = run([1] * 5, [g[0], g[1], g[2], g[3] + g[4], g[5] + g[6]], size)
    torch.testing.assert_close(p, want, rtol=0, atol=1e-6)
    assert set(made.state[p]) == set(other.state[want])
    made.param_groups[0]["every"] = 0
    assert refused(made.step) == "NL0968 `every` counts steps, a whole number from 1; found `0`"


def test_a_saved_state_brings_its_clock() -> None:
    g = [torch.full((3,), float(n + 1)) for n in range(4)]
    p, made = run([2, 2, 2], g[:3], 3)
    q = nn.Parameter(p.detach().clone())
    other = nldsl.optimizer("adamw", [q], lr=0.5)
    other.load_state_dict(made.state_dict())
    for weight_, optimizer_ in ((p, made), (q, other)):
        weight_.grad = g[3].clone()
        optimizer_.step()
    assert torch.equal(p, q)
