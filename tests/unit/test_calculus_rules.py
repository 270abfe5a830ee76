"""Rules in closed form, however they are written."""

from __future__ import annotations

import pytest

from nldsl.calculus import build, equal, rule_form, symbol
from nldsl.calculus.sorting import Moving, NotRankOneError, sort
from tests.unit.calculus_examples import dgd, momentum, rule


def test_rules_written_otherwise() -> None:
    lr = symbol("lr", role="argument")
    for by in (
        rule(lambda c, i: (c("add", i["W"], c("mul", i["lr"], c("neg", i["g"]))),)),
        rule(lambda c, i: (c("neg", c("sub", c("mul", i["g"], i["lr"]), i["W"])),)),
        rule(lambda c, i: (c("sub", i["W"], c("mul", i["lr"], c("outer", i["dy"], i["x"]))),)),
        rule(lambda c, i: (c("sub", c("mul", 2.0, i["W"]), c("add", i["W"], c("mul", i["lr"], i["g"]))),)),
    ):
        form = rule_form(by, (3, 4)).form
        assert form is not None and form.momentum is None
        assert form.keep.value == 1.0 and form.erase.value == 0.0 and equal(form.rate, lr)


def test_the_rates_of_delta_gradient_descent() -> None:
    lr, x = symbol("lr", role="argument"), symbol("x", (4,), "vector", role="rule")
    square = build("dot", x, x)
    expected = {
        "raw": lr,
        "proximal": build("div", lr, build("add", 1.0, build("mul", lr, square))),
        "normalised": build("div", lr, build("add", 1e-2, square)),
    }
    for rate, value in expected.items():
        form = rule_form(dgd(rate), (3, 4)).form
        assert form is not None and form.x is x
        assert equal(form.erase, value) and equal(form.rate, value) and form.keep.value == 1.0
    assert rule_form(dgd(), (4,)).form is None


def test_erase_written_as_a_product_of_matrices() -> None:
    by = rule(
        lambda c, i: (c("sub", i["W"], c("mul", i["lr"], c("matmul", i["W"], c("outer", i["x"], i["x"])))),)
    )
    form = rule_form(by, (3, 4)).form
    assert form is not None and equal(form.erase, symbol("lr", role="argument")) and form.rate.value == 0.0


def test_weight_decay_is_kept() -> None:
    by = rule(
        lambda c, i: (
            c("sub", c("mul", c("sub", 1.0, c("mul", i["lr"], 0.1)), i["W"]), c("mul", i["lr"], i["g"])),
        )
    )
    form = rule_form(by, (3, 4)).form
    lr = symbol("lr", role="argument")
    assert form is not None and equal(form.keep, build("sub", 1.0, build("mul", 0.1, lr)))
    vector_form = rule_form(by, (3,)).form
    assert vector_form is not None and equal(vector_form.rate, lr)


def test_momentum_is_a_filter() -> None:
    form = rule_form(momentum(), (3, 4)).form
    assert form is not None and form.momentum is not None
    assert form.momentum.beta is symbol("beta", role="argument")
    assert form.momentum.rate is symbol("lr", role="argument") and form.momentum.read.value == 1.0
    average = rule(
        lambda c, i: (lambda m: (c("sub", i["W"], c("mul", i["lr"], m)), m))(
            c("add", c("mul", 0.9, i["m"]), c("mul", 0.1, i["g"]))
        ),
        slots=("m",),
    )
    other = rule_form(average, (3, 4)).form
    assert other is not None and other.momentum is not None
    assert other.momentum.rate.value == -0.1 and equal(
        other.momentum.read, build("neg", symbol("lr", role="argument"))
    )


def test_the_memory_on_both_sides_of_one_product_is_no_erase() -> None:
    """`(W a) (W^T b)^T` is of the second order in `W`; with one of the two sides it is an erase."""
    W = symbol("W", (4, 4), "matrix", role="state")
    a, b = (symbol(n, (4,), "vector", role="argument") for n in "ab")
    asked, told = build("matmul", W, a), build("matmul", b, W)
    moving = Moving(W, W, ())
    assert sort(build("outer", asked, b), moving, "r").key_side
    assert sort(build("outer", a, told), moving, "r").value_side
    for product in (build("outer", asked, told), build("outer", asked, asked)):
        with pytest.raises(NotRankOneError, match="not affine in the memory$"):
            sort(product, moving, "r")
