"""Rules that look at whole weights by sums (norms, means, shares) as loops in C: equal to a loop by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import nldsl
from nldsl.diagnostics import SpecError
from nldsl.runtime import native
from nldsl.view.rule_forms import rule_form
from tests.conformance.rules_of_more_papers import MORE
from tests.conformance.rules_of_papers import RULES
from tests.conformance.test_rules_of_papers import MODEL, drawn

pytestmark = pytest.mark.skipif(not native.compiler(), reason="no C compiler")
NAMES = ("lamb", "prodigy", "cautious", "mars", "nest3", "apollo")
"""Norms, shares, numbers that stay, sums that need other sums, choices by the step."""
SHAPES: tuple[tuple[int, ...], ...] = ((5, 7), (7,), (), (2, 3, 4, 3), (150, 130))


def group(name: str) -> Any:
    text, call, _ = {**RULES, **MORE}[name]
    plan = nldsl.program(text + MODEL.format(call)).train
    assert plan is not None
    return plan.groups[0]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_thirty_steps_equal_the_loop_by_hand(name: str, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        weights = [nn.Parameter(drawn(shape, i)) for i, shape in enumerate(SHAPES)]
        ready = nldsl.optimizer(group(name), weights, form="compiled")
        assert {form for form, _ in ready.forms().values()} == {"compiled"}
        wanted, kept = [w.detach().clone() for w in weights], [dict[str, Any]() for _ in weights]
        for step in range(1, 31):
            for i, w in enumerate(weights):
                g = drawn(tuple(w.shape), 100 * i + step)
                w.grad = g.clone()
                wanted[i] = {**RULES, **MORE}[name][2](wanted[i], g, kept[i], step)
            ready.step()
    finally:
        torch.set_num_threads(before)
    for w, by_hand in zip(weights, wanted, strict=True):
        torch.testing.assert_close(w.detach(), by_hand, rtol=1e-12, atol=1e-12)


def test_threads_add_up_in_one_order() -> None:
    """Two threads give the same bits every time."""
    found = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(3):
            weight = nn.Parameter(drawn((200, 300), 1).float())
            ready = nldsl.optimizer(group("lamb"), [weight], form="compiled")
            for step in range(5):
                weight.grad = drawn((200, 300), step).float()
                ready.step()
            found.append(weight.detach())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_stack_that_cannot_be_compiled_is_named() -> None:
    flat, stack = nn.Parameter(drawn((5, 7), 1)), nn.Parameter(drawn((2, 5, 7), 1))
    ready = nldsl.optimizer(group("lamb"), [("flat", flat), ("experts", stack)], form="compiled")
    flat.grad, stack.grad = drawn((5, 7), 2), drawn((2, 5, 7), 2)
    with pytest.raises(SpecError, match="NL0968.*for `experts`: a stack of matrices is taken one by one"):
        ready.step()


def test_every_matrix_of_a_stack_has_a_norm_of_its_own() -> None:
    stack, alone = nn.Parameter(drawn((2, 5, 7), 1)), [nn.Parameter(m) for m in drawn((2, 5, 7), 1)]
    together, apart = (
        nldsl.optimizer(group("lamb"), [stack]),
        nldsl.optimizer(group("lamb"), alone, form="compiled"),
    )
    assert together.forms()["parameter 0 of group 0"] == ("matrix", "a stack of matrices is taken one by one")
    for step in range(4):
        stack.grad = drawn((2, 5, 7), 10 + step)
        for w, g in zip(alone, stack.grad, strict=True):
            w.grad = g
        together.step()
        apart.step()
    torch.testing.assert_close(
        stack.detach(), torch.stack([w.detach() for w in alone]), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("lamb", (5, 7), "matrices: loops with sums between them in C"),
        ("adam_mini", (5, 7), "matrix by matrix in torch; the memory `v` is [5]"),
    ],
)
def test_explain_says_which_way(name: str, shape: tuple[int, ...], said: str) -> None:
    assert said in rule_form(group(name), shape, False)


def test_a_mean_of_sums_stays_with_torch() -> None:
    """Kernels are shared by shapes, and such a sum depends on the shape."""
    rule = "rule mixed(lr = 0.1) { W = W - lr * mean(sum(g ** 2)) * g }"
    weights = [nn.Parameter(drawn(shape, 1)) for shape in ((5, 7), (2, 9))]
    ready = nldsl.optimizer(rule, weights)
    assert {kernel.native_reason for kernel in ready.kernels.values()} == {
        "a `mean` of a `sum` looks at rows"
    }
    for w in weights:
        w.grad = drawn(tuple(w.shape), 2)
    ready.step()
    for w in weights:
        g = drawn(tuple(w.shape), 2)
        by_hand = drawn(tuple(w.shape), 1) - 0.1 * (g**2).sum(1).mean() * g
        torch.testing.assert_close(w.detach(), by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rule", "shape"), [("adafactor", (33,)), ("mirror_norm(lr = 0.1)", (9, 7))])
def test_rules_of_the_library_are_what_torch_makes_of_them(rule: str, shape: tuple[int, ...]) -> None:
    found = []
    for form in ("compiled", "eager"):
        weight = nn.Parameter(drawn(shape, 1))
        ready = nldsl.optimizer(rule, [weight], form=form)
        for step in range(10):
            weight.grad = drawn(shape, 10 + step)
            ready.step()
        found.append([weight.detach(), *ready.state[weight].values()])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)
