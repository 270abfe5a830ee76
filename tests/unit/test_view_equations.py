"""Equations as a reader sees them: signs, rates, the state a gradient is taken at."""

from __future__ import annotations

import re

import pytest

from nldsl.driver import open_program
from nldsl.view.equations import Dynamics, dynamics


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


def dynamics_of(body: str, *declared: str, every: int = 1) -> Dynamics:
    """Of `S` in a block of two heads with keys, values, gates `a`, `b` per head and `w` per channel."""
    levels = "; ".join(declared or ("memory S = matrix() per head(2)",))
    unit = "token" if every == 1 else "tokens"
    used = {
        "k": "l2norm(split(linear(x), 2))",
        "v": "split(linear(x), 2)",
        "a": "sigmoid(linear(x, 2))",
        "b": "sigmoid(linear(x, 2))",
        "w": "sigmoid(split(linear(x), 2))",
    }
    lines = "\n".join(f"  {n} = {t}" for n, t in used.items() if re.search(rf"\b{n}\b", body))
    text = (
        f"block f(x) {{\n  level c every {every} {unit} {{ {levels} }}\n{lines}\n  {body}\n"
        "  return linear(merge(S[split(linear(x), 2)]))\n}\n"
    )
    return next(d for d in dynamics(open_program(text, dim=8)) if d.name == "S")


def test_updates_stand_where_the_program_has_them() -> None:
    found = dynamics_of("S *= a; S *= values(w); S[k] <- v by gd(lr = b); S += 0.01 * weight(4, 4); S *= 0.5")
    assert [f.text for f in found.formulas] == [
        "S_t = a_t S_{t-1}",
        "S_t = diag(w_t) S_{t-1}",
        "S_t = S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T",
        "S_t = S_{t-1} + 0.01 * weight(, ..)",
        "S_t = 0.5 S_{t-1}",
    ]
    assert found.known_as == ""
    assert found.spectrum == "beside that, every token scales what is held by a in (0, 1), w in (0, 1), 0.5"


def test_a_sum_of_what_the_memory_answers_is_no_plain_sum() -> None:
    for body in (
        "S += 0.5 * outer(v - tanh(S[k]), k)",
        "y = tanh(S[k]); S[k] <- y * y minimize dot by gd(lr = 0.1)",
    ):
        found = dynamics_of(body)
        assert found.letter == "X" and not found.transitions and found.known_as == ""
        assert "`S[k]`" in found.spectrum
    held = dynamics_of("S[k] <- v - S[k] minimize dot by gd(lr = 0.1)", every=4)
    assert held.letter == "N" and not held.transitions and held.known_as == ""


def test_the_error_at_the_key_is_the_delta_rule() -> None:
    found = dynamics_of("S *= a; S += b * outer(v - S[k], k)")
    written = dynamics_of("S *= a; S[k] <- v by gd(lr = b)")
    assert found.letter == "R" and found.formulas[-1].text == written.formulas[-1].text
    assert found.known_as == written.known_as and found.known_as.startswith("Gated DeltaNet")
    assert found.spectrum == written.spectrum and found.transitions == written.transitions


def test_letters_of_the_author_bear_their_index() -> None:
    made = "d = l2norm(split(linear(x), 2)); g = sigmoid(linear(x, 2)); "
    write = "S[d] <- v minimize dot by gd(lr = 1) retain g"
    assert dynamics_of(made + write).formulas[0].text == "S_t = g_t S_{t-1} + v_t d_t^T"


def test_every_term_calls_its_own_rate_by_its_own_name() -> None:
    body = "write S { [k] <- v by gd(lr = 0.2); [l2norm(w)] <- v by gd(lr = sigmoid(linear(x, 2))) } retain a"
    found = dynamics_of(body)
    assert "0.2 k_t k_t^T - eta_t k2_t k2_t^T" in found.formulas[0].text
    assert found.spectrum.startswith("the transition is a I - 0.2 k k^T - eta k2 k2^T: ")


HELD = {
    "S[k] <- v by momentum(lr = 0.2, beta = 0.9)": "Titans, a matrix memory with momentum",
    "S[k] <- v minimize dot by gd(lr = 0.2)": "linear attention (Katharopoulos et al. 2020), read as of",
    "S[k] <- v minimize dot by gd(lr = 0.2) retain a": "Mamba-2, a scalar gate per head",
    "S[k] <- v by gd(lr = 0.2)": "a TTT layer",
}


@pytest.mark.parametrize("body", HELD)
def test_a_matrix_on_a_clock_is_no_deep_memory(body: str) -> None:
    found = dynamics_of(body, every=4)
    assert found.known_as.startswith(HELD[body])
    assert all("track" not in step.sentence for _, step in found.transitions if "dot" not in body)


GATES = {
    "1 - 2 ** (-5 - index(2))": "RetNet (Sun et al. 2023)",
    "sigmoid(weight(2))": "RetNet with decays that are learned",
    "1 - 1 / (2 + position())": "",
    "1 - 1 / (2 + position() + index(2))": "",
    "a": "Mamba-2, a scalar gate per head (Dao and Gu 2024)",
    "split(sigmoid(weight(8)), 2)": "",
    "w": "gated linear attention, GLA (Yang et al. 2024)",
}


@pytest.mark.parametrize("gate", GATES)
def test_a_name_asks_what_the_gate_is_made_of(gate: str) -> None:
    found = dynamics_of(f"S[k] <- v minimize dot by gd(lr = 1) retain {gate}")
    assert found.known_as == GATES[gate]


def test_erases_alone_are_no_delta_rule() -> None:
    learned = "memory S = matrix(out = 4) per head(2) init learned"
    assert "PaTH" in dynamics_of("S[k] <- 0 by gd(lr = b)", learned).known_as


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (
            "beta = sigmoid(linear(x))\n  S *= eta\n  S[x] <- x by gd(lr = beta)",
            "S_t = eta_t S_{t-1} (I - x_t (BETA)^T) + x_t (BETA)^T",
        ),
        (
            "p = linear(x)\n  S = eta * S + outer(x - eta * (S @ p), x)",
            "S_t = eta_t S_{t-1} (I - p_t x_t^T) + x_t x_t^T",
        ),
        ("S = 0.5 * S + outer(x - eta * (S @ x), x)", "S_t = S_{t-1} (0.5 I - eta_t x_t x_t^T) + x_t x_t^T"),
    ],
)
def test_an_erase_along_another_vector_is_one_line(write: str, expected: str) -> None:
    found = re.sub(r"x_t \* beta_t|beta_t \* x_t", "BETA", lines(write)[0])
    assert found == expected


def test_a_rate_per_channel_under_a_gate_is_told_with_it() -> None:
    text = (
        "block f(x, heads = 2) {\n  level a every 1 token { memory S = matrix() per head }\n"
        "  k = l2norm(split(linear(x), heads))\n  b = sigmoid(split(linear(x), heads))\n"
        "  g = sigmoid(linear(x, heads))\n  S *= g\n  S[k] <- linear(x) by gd(lr = b)\n"
        "  return linear(merge(S[k]))\n}\n"
    )
    (row,) = dynamics(open_program(text, dim=8))
    assert row.spectrum.endswith("all of it times `g`")


def test_products_of_channels_are_told_from_products_of_matrices() -> None:
    text = "map two(z) { A = weight(dim(z), dim(z)); B = weight(dim(z), dim(z)); return (A @ z) * (B @ z) }\n"
    found = lines("S[x] <- x minimize dot by gd(lr = eta)", text, "two()", clock=4)
    assert "A: z = x_t, d = -x_t * (B_c x_t)" in found


def test_numbers_of_a_rule_that_say_nothing_are_left_out() -> None:
    found = lines("S[x] <- x by signsgd(lr = 0.1)", clock=4)
    assert found[0] == "W = W - 0.1 * sign(g)"


def test_an_erase_at_another_key_is_no_target_of_its_own() -> None:
    text = (
        "block f(x) {\n  level a every 1 token { memory S = matrix() }\n"
        "  e = l2norm(linear(x))\n  k = l2norm(linear(x))\n"
        "  S += outer(linear(x) - linear(x) * S[e], k)\n  return S[k]\n}\n"
    )
    (row,) = dynamics(open_program(text, dim=4))
    assert row.letter == "X" and "self-modifying" not in row.known_as


def test_an_erase_along_values_stands_on_the_left() -> None:
    found = lines("u = linear(x)\n  S = (I - eta * outer(x, x)) @ S + outer(u, x)")
    assert found[0] == "S_t = (I - eta_t x_t x_t^T) S_{t-1} + u_t x_t^T"
