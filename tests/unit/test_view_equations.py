"""Equations as a reader sees them: signs, rates, the state a gradient is taken at."""

from __future__ import annotations

import re

import pytest

from nldsl.driver import open_program
from nldsl.view.equations import dynamics


def lines(write: str, before: str = "", memory: str = "matrix() init zero", clock: int = 1) -> list[str]:
    """The equations of one memory, then what their letters stand for."""
    text = (
        f"{before}block f(x) {{\n  level a every {clock} tokens {{ memory S = {memory} }}\n"
        f"  eta = sigmoid(mean(linear(x)))\n  {write}\n  return eta * S[x]\n}}\n"
    )
    (row,) = dynamics(open_program(text, dim=4))
    return [f.text for f in (*row.formulas, *row.where)]


PAYS = "objective pays(pred, target) { return -0.5 * sum(pred ** 2) + sum(pred * target) }\n"
SLOW = "rule slow(lr) {\n  memory m = like(W)\n  m = 0.9 * m + g\n  W = W - lr * m\n}\n"


@pytest.mark.parametrize(
    ("write", "before", "expected"),
    [
        (
            "S[x] <- x minimize pays by gd(lr = eta)",
            PAYS,
            "S_t = S_{t-1} (I + eta_t x_t x_t^T) - eta_t x_t x_t^T",
        ),
        ("S[x] <- x by slow(lr = 0.1)", SLOW, "S_t = S_{t-1} - 0.1 m_t"),
        ("S[x] <- x by slow(lr = 0.1)", SLOW, "m_t = 0.9 m_{t-1} + S_{t-1} x_t x_t^T - x_t x_t^T"),
        ("S[x] <- x minimize oja by gd(lr = eta)", "", "S_t = S_{t-1} - eta_t g"),
        ("S[x] <- x minimize oja by gd(lr = eta)", "", "S: g = x_t (S^T x_t)^T - x_t x_t^T"),
    ],
)
def test_signs_are_gathered(write: str, before: str, expected: str) -> None:
    assert expected in lines(write, before)


def test_the_base_of_a_gradient_is_named() -> None:
    found = lines("S[x] <- x by gd(lr = eta)", clock=8)
    assert "S_t = S_{t-1} - eta_t d z^T" in found[0].replace("W", "S")
    assert any(line == "S_c: as of the last commit" for line in found)


def test_a_weight_called_w_keeps_its_name() -> None:
    text = "map own(z) { W = weight(dim(z), dim(z)); b = weight(dim(z)); return W @ z + b }\n"
    found = lines("S[x] <- x by gd(lr = eta)", text, "own()", clock=8)
    assert found[0] == "W_t = W_{t-1} - eta_t d z^T"
    assert "W_c, b_c: as of the last commit" in found


def test_what_a_long_gradient_repeats_gets_a_letter() -> None:
    text = (
        "map own(z) {\n  W = weight(dim(z), dim(z))\n  b = weight(dim(z))\n"
        "  return z + layernorm(silu(W @ z + b))\n}\n"
    )
    found = lines("S[x] <- x by gd(lr = eta)", text, "own()", clock=8)
    letters = dict(line.split(" = ", 1) for line in found if line.startswith("u"))
    assert list(letters) == [f"u{n}" for n in range(1, len(letters) + 1)]
    assert letters["u1"] == "b_c + W_c x_t"
    bodies = [line for line in found if " = " in line and not line.startswith("W_t")]
    for number, letter in enumerate(letters, 1):
        told = [n for n, line in enumerate(bodies) if letter in re.findall(r"\w+", line.split(" = ", 1)[1])]
        assert told, f"{letter} is never used"
        assert min(told) >= number, f"{letter} is used above the line that says what it is"
    slope = next(line for line in found if line.startswith("b: g = ")).removeprefix("b: g = ")
    assert slope == list(letters)[-1] and f"W: z = x_t, d = {slope}" in found


def test_a_rate_that_divides_by_the_input_names_the_input_of_each_weight() -> None:
    rule = (
        "rule scaled(lr, beta = 0.9) {\n  memory m = like(W)\n"
        "  m = beta * m - lr / (0.01 + sum(x ** 2)) * g\n  W = W + m\n}\n"
    )
    found = lines("S[x] <- x by scaled(lr = eta)", rule, "mlp(2)", clock=8)
    assert "m_t = 0.9 m_{t-1} - (eta_t / (0.01 + ||z||^2)) d z^T" in found


def test_a_gate_out_of_a_vector_of_one_is_called_as_the_author_does() -> None:
    text = (
        "block f(x) {\n  level a every 1 token { memory S = matrix() init zero }\n"
        "  k = l2norm(linear(x))\n  eta = sigmoid(linear(x, 1))\n  keep = sigmoid(linear(x, 1))\n"
        "  S *= keep\n  S[k] <- x by gd(lr = eta)\n  return S[k]\n}\n"
    )
    (row,) = dynamics(open_program(text, dim=4))
    assert row.formulas[0].text == "S_t = keep_t S_{t-1} (I - eta_t k_t k_t^T) + eta_t x_t k_t^T"
    assert [name for name, _ in row.gates] == ["eta", "keep"]
    assert row.transitions[0][1].factor == "keep (1 - eta)"
