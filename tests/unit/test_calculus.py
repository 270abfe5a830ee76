"""Expressions, gradients, closed forms of rules, classes of updates, schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nldsl.calculus import (
    Expr,
    NotDifferentiableError,
    affine_in,
    build,
    canonical,
    describe,
    equal,
    evaluate,
    gate_logarithm,
    gate_positive,
    gradient,
    number,
    rule_form,
    schedule,
    substitute,
    symbol,
    symbols,
    update_class,
)
from nldsl.calculus.ranges import range_of
from nldsl.spec.program import Apply, Block, Clock, Function, Memory, Rule, Term, Value, Write
from tests.unit.calculus_examples import (
    Code,
    dgd,
    dot,
    gd,
    l2,
    matrix,
    matrix_map,
    momentum,
    objective,
    residual_mlp,
    rule,
    scalar,
    vector,
)


def memory(function: Function | None, name: str = "S") -> Memory:
    """A memory with this map, per head."""
    count = len(function.weights) if function else 0
    return Memory(name, name, "context", Clock(1, "tokens"), function, True, 2, 4, 3, "zero", (None,) * count)


def write(goal: Function, by: Rule, **clauses: Any) -> Write:
    """`S[k] <- v minimize goal by rule`."""
    return Write("S", (Term(vector("k", 4), vector("v", 3), goal, by),), **clauses)


def test_equal_structure_is_one_object() -> None:
    x, y = symbol("x", (3,), "vector"), symbol("y", (3,), "vector")
    assert build("mul", x, y) is build("mul", y, x)
    assert build("sigmoid", build("add", x, y)) is build("sigmoid", build("add", y, x))
    assert symbol("x", (3,), "vector", role="weight") is not x
    assert number(0.0) is number(-0.0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda x: build("add", x, build("mul", 0.0, x)), lambda x: x),
        (lambda x: build("neg", build("neg", x)), lambda x: x),
        (lambda x: build("sub", 0.0, x), lambda x: build("neg", x)),
        (lambda x: build("log", build("exp", x)), lambda x: x),
        (lambda x: build("log", build("sigmoid", x)), lambda x: build("logsigmoid", x)),
        (lambda x: build("mul", build("neg", x), build("neg", x)), lambda x: build("pow", x, 2.0)),
        (lambda x: build("sum", build("pow", x, 2.0)), lambda x: build("dot", x, x)),
        (lambda x: build("mul", 2.0, build("mul", 3.0, x)), lambda x: build("mul", 6.0, x)),
        (lambda x: build("sub", x, build("neg", x)), lambda x: build("mul", 2.0, x)),
    ],
)
def test_short_forms(found: Any, expected: Any) -> None:
    x = symbol("x", (3,), "vector")
    assert found(x) is expected(x)


def test_logarithm_of_a_product_of_gates() -> None:
    a, b = symbol("a"), symbol("b")
    gate = build("mul", build("sigmoid", a), build("exp", build("neg", build("softplus", b))))
    expected = build("sub", build("logsigmoid", a), build("softplus", b))
    assert build("log", gate) is expected
    assert build("log", build("mul", a, b)).op == "log"


def test_axes_carry_labels() -> None:
    found = gradient(residual_mlp(4, 5), dot(4))
    w2, w1 = found.gradients
    assert w2.weight.axes == ("W2.out", "W2.in")
    assert w1.x is not None and w1.x.axes == ("W2.out",)
    assert w2.expression.axes[1] == "key.0"


@pytest.mark.parametrize("goal", [l2, dot])
def test_gradient_of_an_mlp_equals_finite_differences(goal: Any) -> None:
    found = gradient(residual_mlp(4, 5), goal(4))
    rng = np.random.default_rng(0)
    values: dict[Expr, Any] = {s: rng.normal(size=s.shape) for s in symbols(found.loss)}
    for g in found.gradients:
        assert g.x is not None and g.dy is not None and g.general is None
        claimed = np.outer(evaluate(g.dy, values), evaluate(g.x, values))
        np.testing.assert_allclose(claimed, differences(found.loss, values, g.weight), rtol=1e-6, atol=1e-8)


def differences(loss: Expr, values: dict[Expr, Any], about: Expr) -> Any:
    """Central differences of a scalar."""
    result = np.zeros(about.shape)
    for index in np.ndindex(about.shape):
        step = np.zeros(about.shape)
        step[index] = 1e-6
        ends = [evaluate(loss, {**values, about: values[about] + sign * step}) for sign in (1, -1)]
        result[index] = (ends[0] - ends[1]) / 2e-6
    return result


def test_vector_weights_and_shared_weights() -> None:
    c, z = Code(), vector("z", 4)
    gain, w = vector("gain", 4), matrix("W", 4, 4)
    y = c("mul", gain, c("matmul", w, c("tanh", c("matmul", w, z))))
    found = gradient(Function("m", (z,), (gain, w), tuple(c.body), (y,)), l2(4))
    first, second = found.gradients
    assert first.general is not None and first.x is None and not first.outer_terms
    assert second.x is None and len(second.outer_terms) == 2
    rng = np.random.default_rng(1)
    values: dict[Expr, Any] = {s: rng.normal(size=s.shape) for s in symbols(found.loss)}
    for g in found.gradients:
        expected = differences(found.loss, values, g.weight)
        np.testing.assert_allclose(evaluate(g.expression, values), expected, rtol=1e-6, atol=1e-8)


def test_an_objective_that_sees_the_memory() -> None:
    """Oja: -<pred, target> + 1/2 ||W^T target||^2."""
    c, pred, target, w = Code(), vector("pred", 3), vector("target", 3), matrix("weight", 3, 4)
    back = c("matmul", target, w)
    loss = c("sub", c("mul", 0.5, c("dot", back, back)), c("dot", pred, target))
    oja = Function("oja", (pred, target, w), (), tuple(c.body), (loss,))
    found = gradient(matrix_map(), oja)
    assert found.sees_memory and found.gradients[0].x is None
    rng = np.random.default_rng(2)
    values: dict[Expr, Any] = {s: rng.normal(size=s.shape) for s in symbols(found.loss)}
    expected = differences(found.loss, values, found.weights[0])
    np.testing.assert_allclose(
        evaluate(found.gradients[0].expression, values), expected, rtol=1e-6, atol=1e-8
    )
    assert update_class(memory(matrix_map()), write(oja, gd())).letter == "X"


def test_what_has_no_gradient_is_named() -> None:
    goal = objective(lambda c, p, t: c("sum", c("sum", c("rownorm", c("outer", p, t)))))
    with pytest.raises(NotDifferentiableError, match="rownorm"):
        gradient(matrix_map(), goal)
    found = update_class(memory(matrix_map()), write(goal, gd()))
    assert found.letter == "X" and "rownorm" in found.reasons[0]


SQUARES = {
    "0.5 * sum((p - t) ** 2)": lambda c, p, t: c("mul", 0.5, c("sum", c("pow", c("sub", p, t), 2.0))),
    "0.5 * sum((t - p) ** 2)": lambda c, p, t: c("mul", 0.5, c("sum", c("pow", c("sub", t, p), 2.0))),
    "sum(e * e) / 2": lambda c, p, t: c("div", c("sum", c("mul", c("sub", p, t), c("sub", p, t))), 2.0),
    "dot(e, e) * 0.5": lambda c, p, t: c("mul", c("dot", c("sub", p, t), c("sub", p, t)), 0.5),
    "mean(e ** 2) * 1.5": lambda c, p, t: c("mul", c("mean", c("pow", c("sub", p, t), 2.0)), 1.5),
    "p.p/2 - p.t": lambda c, p, t: c("sub", c("mul", 0.5, c("dot", p, p)), c("dot", p, t)),
}


@pytest.mark.parametrize("text", sorted(SQUARES))
def test_every_way_to_write_the_squared_error(text: str) -> None:
    found = update_class(memory(matrix_map()), write(objective(SQUARES[text]), gd()))
    assert found.letter == "R"
    form = found.terms[0].online
    assert form is not None and form.momentum is None
    lr = symbol("lr", role="argument")
    assert equal(form.erase, lr) and form.keep.value == 1.0
    assert equal(form.value, build("mul", lr, symbol("target", (3,), "vector", role="target")))


def test_affine_of_a_scaled_error() -> None:
    found = gradient(matrix_map(), objective(lambda c, p, t: c("dot", c("sub", c("mul", 3.0, p), t), p)))
    split = affine_in(found.objective_delta, found.prediction)
    assert split is not None and split.scalar_coefficient() is number(6.0)


NONLINEAR = {
    "p ** 4": lambda c, p, t: c("sum", c("pow", c("sub", p, t), 4.0)),
    "|e|": lambda c, p, t: c("sum", c("abs", c("sub", p, t))),
    "huber": lambda c, p, t: c(
        "sum",
        c(
            "where",
            c("lt", c("abs", c("sub", p, t)), 1.0),
            c("pow", c("sub", p, t), 2.0),
            c("abs", c("sub", p, t)),
        ),
    ),
    "(p.t) ** 2": lambda c, p, t: c("pow", c("dot", p, t), 2.0),
    "t * e ** 2": lambda c, p, t: c("sum", c("mul", t, c("pow", c("sub", p, t), 2.0))),
    "sqrt(e ** 2)": lambda c, p, t: c("sqrt", c("sum", c("pow", c("sub", p, t), 2.0))),
    "detach(p) * p": lambda c, p, t: c("sum", c("mul", c("detach", p), p)),
}


@pytest.mark.parametrize("text", sorted(NONLINEAR))
def test_objectives_that_differ_are_not_taken_for_squares(text: str) -> None:
    found = update_class(memory(matrix_map()), write(objective(NONLINEAR[text]), gd()))
    assert found.letter == "X" and found.chunked_letter == "N"


SEQUENTIAL = {
    "clipped": rule(lambda c, i: (c("sub", i["W"], c("mul", i["lr"], c("tanh", i["g"]))),)),
    "gradient squared": rule(lambda c, i: (c("sub", i["W"], c("mul", i["lr"], c("pow", i["g"], 2.0))),)),
    "norm of the gradient": rule(
        lambda c, i: (c("sub", i["W"], c("mul", c("dot", i["dy"], i["dy"]), i["g"])),), arguments=()
    ),
    "normalised weight": rule(lambda c, i: (c("rownorm", c("sub", i["W"], c("mul", i["lr"], i["g"]))),)),
    "orthogonalised": rule(lambda c, i: (c("sub", i["W"], c("mul", i["lr"], c("orthogonalize", i["g"]))),)),
    "erase along the gradient": rule(
        lambda c, i: (
            c(
                "sub",
                i["W"],
                c("mul", i["lr"], c("outer", c("matmul", i["W"], i["x"]), c("matmul", i["dy"], i["W"]))),
            ),
        )
    ),
    "squared input": rule(
        lambda c, i: (
            c(
                "sub",
                i["W"],
                c("mul", i["lr"], c("outer", c("matmul", i["W"], i["x"]), c("mul", i["x"], i["x"]))),
            ),
        )
    ),
}


def test_a_rate_of_the_step_is_a_number() -> None:
    counted = rule(lambda c, i: (c("sub", i["W"], c("div", i["g"], i["step"])),), arguments=())
    form = rule_form(counted, (3, 4)).form
    assert form is not None and str(form.rate) == "1 / step"
    assert update_class(memory(matrix_map()), write(l2(), counted)).letter == "R"


STEP = symbol("step", role="rule")
POWERS = {
    "0.1 / (1 - 0.9 ** step)": (build("div", 0.1, build("sub", 1.0, build("pow", 0.9, STEP))), "(0.1, 1]"),
    "1 / sqrt(step)": (build("div", 1.0, build("pow", STEP, 0.5)), "(0, 1]"),
    "step ** -0.8": (build("pow", STEP, -0.8), "(0, 1]"),
    "sigmoid(a) ** -1": (build("pow", build("sigmoid", symbol("a")), -1.0), "(1, inf)"),
    "2 ** step": (build("pow", 2.0, STEP), "[2, inf)"),
    "a ** 3": (build("pow", symbol("a"), 3.0), "any number"),
    "1 ** step": (build("pow", 1.0, STEP), "1"),
}


@pytest.mark.parametrize("text", POWERS)
def test_ranges_of_powers(text: str) -> None:
    expr, wanted = POWERS[text]
    assert str(range_of(expr)) == wanted


@pytest.mark.parametrize("text", sorted(SEQUENTIAL))
def test_rules_without_closed_form(text: str) -> None:
    found = rule_form(SEQUENTIAL[text], (3, 4))
    assert found.form is None and found.reason
    assert update_class(memory(matrix_map()), write(l2(), SEQUENTIAL[text])).chunked_letter == "X"


def test_classes_and_equations() -> None:
    names = {"lr": "beta"}
    cases = {
        ("R", "S_t = S_{t-1} (alpha_t I - beta_t k_t k_t^T) + beta_t v_t k_t^T"): (l2(), gd()),
        ("D", "S_t = alpha_t S_{t-1} + beta_t v_t k_t^T"): (dot(), gd()),
        ("R", "S_t = alpha_t S_{t-1} + m_t"): (l2(), momentum()),
    }
    for (letter, line), (goal, by) in cases.items():
        step = write(goal, by, retain=scalar("alpha"))
        found = update_class(memory(matrix_map()), step)
        text = describe(memory(matrix_map()), step, found, names)
        assert found.letter == letter and text.text[-1] == line
        assert all(text.latex) and text.reasons[-1].startswith(f"class {letter}")


def test_the_equation_of_a_gated_delta_rule() -> None:
    step = write(l2(), gd())
    found = update_class(memory(matrix_map()), step)
    text = describe(memory(matrix_map()), step, found, {"lr": "beta"}, scaled_by="alpha")
    assert text.text == ("S_t = alpha_t S_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T",)
    alpha, beta = r"\alpha_{t}", r"\beta_{t}"
    assert text.latex == (
        rf"S_t = {alpha} S_{{t-1}} (I - {beta} k_{{t}} k_{{t}}^{{\top}}) + {beta} v_{{t}} k_{{t}}^{{\top}}",
    )


def test_the_equation_of_an_mlp_names_input_and_slope() -> None:
    step = write(dot(4), dgd("normalised"), retain=scalar("alpha"))
    found = update_class(memory(residual_mlp(4, 5), "M"), step)
    lines = describe(memory(residual_mlp(4, 5), "M"), step, found, {"lr": "eta"}).text
    assert lines[1] == (
        "W1_t = W1_{t-1} (alpha_t I - (eta_t / (0.01 + ||z||^2)) z z^T) - eta_t / (0.01 + ||z||^2) d z^T"
        "  where z = silu(W2 k_t), d = -v_t"
    )


def test_delta_gradient_descent_with_the_inner_product_is_the_delta_rule() -> None:
    found = update_class(memory(matrix_map()), write(dot(), dgd()))
    form = found.terms[0].online
    lr = symbol("lr", role="argument")
    assert found.letter == "R" and form is not None and equal(form.erase, lr)
    twice = update_class(memory(matrix_map()), write(l2(), dgd())).terms[0].online
    assert twice is not None and equal(twice.erase, build("mul", 2.0, lr))


def test_hope_is_linear_once_gradients_are_held() -> None:
    found = update_class(memory(residual_mlp(4, 5), "M"), write(dot(4), dgd("normalised")))
    assert (found.letter, found.chunked_letter) == ("X", "N")
    first, second = found.terms[0].gradient.gradients  # type: ignore[union-attr]
    form = found.terms[0].rules[1].form
    assert form is not None and first.x is not None and second.x is not None
    hidden = build("silu", build("matmul", first.weight, first.x))
    assert second.x is hidden
    rate = build("div", symbol("lr", role="argument"), build("add", 1e-2, build("dot", hidden, hidden)))
    assert equal(substitute(form.rate, {form.x: hidden}), rate)


def test_toward_the_initial_state_rule_and_gradient_see_different_weights() -> None:
    assert update_class(memory(matrix_map()), write(l2(), gd(), toward="init")).letter == "R"
    found = update_class(memory(matrix_map()), write(l2(), dgd(), toward="init"))
    assert (found.letter, found.chunked_letter) == ("X", "N")


@pytest.mark.parametrize(
    "clauses",
    [{"project": "rownorm"}, {"at_commit": True}, {"append": True}],
)
def test_clauses_no_closed_form_covers(clauses: dict[str, Any]) -> None:
    assert update_class(memory(matrix_map()), write(l2(), gd(), **clauses)).letter == "X"


def test_a_window_and_a_weight_are_not_one_step() -> None:
    base = write(l2(), gd())
    for changes in ({"window": 4}, {"weight": scalar("gamma")}):
        term = Term(base.terms[0].key, base.terms[0].target, l2(), gd(), **changes)  # type: ignore[arg-type]
        assert update_class(memory(matrix_map()), Write("S", (term,))).letter == "X"


def gate_block(*statements: tuple[str, str, tuple[str, ...]]) -> tuple[Block, dict[str, Value]]:
    """A block of applications on heads `[2]`."""
    values = {"x": Value("x", (2,), "heads")}
    body = []
    for name, op, args in statements:
        values[name] = Value(name, (2,), "heads")
        body.append(Apply(values[name], op, tuple(values[a] for a in args)))
    return Block("b", (values["x"],), (), tuple(body), ()), values


def test_gates() -> None:
    block, values = gate_block(("s", "softplus", ("x",)), ("n", "neg", ("s",)), ("alpha", "exp", ("n",)))
    assert gate_positive(block, values["alpha"]) and not gate_positive(block, values["n"])
    assert gate_logarithm(block, values["n"]) is None
    assert str(gate_logarithm(block, values["alpha"])) == "-softplus(x)"


def test_schedule_computes_each_expression_once() -> None:
    found = gradient(residual_mlp(4, 5), l2(4))
    w2, w1 = found.gradients
    assert w2.dy is not None and w1.dy is not None and w1.x is not None
    plan = schedule({"dy2": w2.dy, "dy1": w1.dy, "hidden": w1.x}, {found.key: "k", found.target: "v"})
    assert len({s.expr for s in plan.steps}) == len(plan.steps) == len({s.name for s in plan.steps})
    assert [s.torch for s in plan.steps if s.name == "hidden"] == ["torch.nn.functional:silu"]
    known: set[str] = {"k", "v", "W1", "W2"}
    for step in plan.steps:
        assert all(a.source in known for a in step.arguments if isinstance(a.source, str))
        known.add(step.name)
    assert set(plan.outputs) == {"dy2", "dy1", "hidden"}


def test_schedule_aligns_scalars_and_reuses_what_is_known() -> None:
    x, a = symbol("x", (3,), "vector"), symbol("a")
    product = build("mul", build("sigmoid", a), x)
    plan = schedule({"y": product}, {x: "x", a: "a", build("sigmoid", a): "gate"})
    assert len(plan.steps) == 1
    assert {(g.source, g.view) for g in plan.steps[0].arguments} == {("gate", (1,)), ("x", None)}
    with pytest.raises(ValueError, match="taken"):
        schedule({"x": product}, {x: "x"})


def test_canonical_keeps_exact_decimals() -> None:
    a = symbol("a")
    mixed = build("sub", build("add", build("mul", 0.1, a), build("mul", 0.2, a)), build("mul", 0.3, a))
    assert canonical(mixed) is number(0.0)
