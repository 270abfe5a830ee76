"""Groups claim every parameter once; rules do what their text says; schedules are functions of the step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nldsl.catalog.schedules import SCHEDULES
from nldsl.diagnostics import SpecError
from nldsl.spec.program import GroupRule
from nldsl.train.groups import Claimed, claim
from nldsl.train.optimisers import RuleGroup
from tests.unit.standin import ADAMW, MUON, StandIn, plan_of

MOMENTUM = (("momentum", "constant", (("value", 0.9),)),)


def claims(*groups: GroupRule) -> list[Claimed]:
    model = StandIn(plan_of(*groups))
    return claim(model.program.train, model.parameter_paths(), model.parameter_roles())


def code_of(caught: pytest.ExceptionInfo[SpecError]) -> str:
    return caught.value.diagnostics[0].code


def sgd(*selectors: str, **arguments: float) -> GroupRule:
    return GroupRule(selectors, "sgd", tuple((arguments or {"lr": 0.1}).items()))


def test_roles_and_globs_first_match_wins() -> None:
    got = claims(sgd("blocks.q.*"), MUON, sgd("rest"))
    assert [list(c.parameters) for c in got] == [
        ["blocks[0].q.linear.weight"],
        ["blocks[0].M.W1"],
        ["embed.weight", "blocks[0].decay", "out.head.weight"],
    ]


def test_rest_stands_back_wherever_it_is_written() -> None:
    got = claims(sgd("rest"), MUON)
    assert list(got[1].parameters) == ["blocks[0].q.linear.weight", "blocks[0].M.W1"]


def test_every_parameter_must_be_claimed() -> None:
    with pytest.raises(SpecError) as caught:
        claims(MUON)
    assert code_of(caught) == "NL0961"


def test_a_glob_that_claims_nothing_is_an_error() -> None:
    with pytest.raises(SpecError) as caught:
        claims(sgd("blocks[7].*"), MUON, ADAMW)
    assert code_of(caught) == "NL0962"


@pytest.mark.parametrize(
    ("group", "code"),
    [
        (GroupRule(("rest",), "muon", (("lr", 0.1),)), "NL0963"),
        (GroupRule(("rest",), "adamm", (("lr", 0.1),)), "NL0305"),
        (GroupRule(("rest",), "adamw", (("learning_rate", 0.1),)), "NL0306"),
        (GroupRule(("rest",), "adamw", ()), "NL0308"),
        (GroupRule(("rest",), "adamw", (("lr", "high"),)), "NL0404"),
        (GroupRule(("rest",), "sgd", (("lr", 0.1),), schedules=MOMENTUM), "NL0965"),
        (GroupRule(("rest",), "adamw", (), schedules=(("lr", "sawtooth", ()),)), "NL0965"),
    ],
)
def test_bad_rules(group: GroupRule, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        RuleGroup(claims(group)[0])
    assert code_of(caught) == code


def orthogonalize(m: Tensor) -> Tensor:
    """Newton-Schulz on a matrix, in float64: the text of the primitive, written again."""
    x = m.double() / m.double().norm()
    x = x.T if m.shape[0] > m.shape[1] else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.T if m.shape[0] > m.shape[1] else x


def texts() -> dict[str, object]:
    """The rules of specs/rules as recurrences on (W, g, memories)."""

    def momentum(w: Tensor, g: Tensor, s: dict[str, Tensor], lr: float, _: int) -> Tensor:
        s["m"] = 0.9 * s.get("m", 0) - lr * g
        return w + s["m"]

    def adamw(w: Tensor, g: Tensor, s: dict[str, Tensor], lr: float, t: int) -> Tensor:
        s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
        s["s"] = 0.999 * s.get("s", 0) + 0.001 * g**2
        return (1 - lr * 0.01) * w - lr * s["m"] / (1 - 0.9**t) / ((s["s"] / (1 - 0.999**t)).sqrt() + 1e-8)

    def muon(w: Tensor, g: Tensor, s: dict[str, Tensor], lr: float, _: int) -> Tensor:
        s["m"] = 0.95 * s.get("m", 0) + g
        return w - lr * orthogonalize(g + 0.95 * s["m"])

    return {"sgd": lambda w, g, s, lr, t: w - lr * g, "momentum": momentum, "adamw": adamw, "muon": muon}


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adamw", "muon"])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_rules_are_their_texts_under_a_schedule(rule: str, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
    expected, slots = weight.detach().clone(), {}
    schedule = (("lr", "linear", (("steps", 8), ("value", 0.1), ("warmup", 2))),)
    group = RuleGroup(Claimed(GroupRule(("matrices",), rule, (), schedules=schedule), {"w": weight}))
    for step in range(6):
        g = torch.randn(shape, generator=generator, dtype=torch.float64)
        lr = SCHEDULES["linear"].value(step, 0.0, dict(schedule[0][2]))
        weight.grad = g.clone()
        group.step(step, 0.0)
        expected = texts()[rule](expected, g, slots, lr, step + 1)
    assert torch.allclose(weight, expected, atol=1e-12, rtol=0)


def test_muon_takes_each_head_as_a_matrix() -> None:
    stack = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    rule = GroupRule(("matrices",), "muon", (("lr", 0.1),))
    whole, single = nn.Parameter(stack.clone()), [nn.Parameter(m.clone()) for m in stack]
    groups = [RuleGroup(Claimed(rule, {"w": whole})), *(RuleGroup(Claimed(rule, {"w": m})) for m in single)]
    whole.grad = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(1))
    for m, g in zip(single, whole.grad, strict=True):
        m.grad = g.clone()
    for group in groups:
        group.step(0, 0.0)
    assert torch.equal(whole.data, torch.stack([m.data for m in single]))
    assert not torch.equal(whole.data, stack)


def test_a_slow_group_sums_gradients_until_its_clock_fires() -> None:
    weight = nn.Parameter(torch.zeros(3))
    group = RuleGroup(Claimed(GroupRule(("rest",), "sgd", (("lr", 1.0),), every=3), {"w": weight}))
    for step in range(3):
        assert torch.equal(weight.data, torch.zeros(3))
        weight.grad = torch.full((3,), float(step))
        if step == 2:  # what was gathered survives saving and loading
            again = RuleGroup(Claimed(group.rule, {"w": weight}))
            again.load(group.state())
            group = again
        group.step(step, 0.0)
    assert torch.equal(weight.data, torch.full((3,), -3.0))


def test_schedules() -> None:
    cosine, warmup = SCHEDULES["cosine"], SCHEDULES["warmup"]
    options = {"value": 2.0, "warmup": 4, "floor": 0.1, "steps": 12}
    values = [cosine.value(step, 0.0, options) for step in range(14)]
    assert values[:4] == [0.5, 1.0, 1.5, 2.0] and values[4] == 2.0
    assert values[4:] == sorted(values[4:], reverse=True)
    assert math.isclose(values[12], 0.2) and math.isclose(values[13], 0.2)
    assert math.isclose(cosine.value(99, 1.0, {"value": 2.0}), 0.0, abs_tol=1e-12)
    assert warmup.value(100, 0.5, {"value": 3.0, "warmup": 10}) == 3.0
    assert SCHEDULES["constant"].value(5, 0.5, {"value": 3.0}) == 3.0
