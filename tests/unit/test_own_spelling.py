"""Explanations go by what is computed: layers in somebody's own words, names, letters, eigenvalues."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nldsl.view.equations import Dynamics
from nldsl.view.explain import explain

WORDS = """
objective meet(p, t) { return -sum(p * t) }
objective gap(p, t) { e = t - p; return sum(e * e) / 2 }
rule walk(r) { W = W - r * g }
rule exact(r) { W = W - r / (1 + r * sum(x ** 2)) * g }
rule roll(r, keep) { memory v = like(W); v = keep * v - r * g; W = W + v }
rule pull(r) { W = W - r * (outer(W @ x, x) + g) }
rule spread(r, keep) { memory L = like(W); L = keep * where(step == 1, W, L) - r * g; W = softmax(L) }
block mine(z, heads = 2) {
  level t every 1 token { memory Z = MAP per head }
  g = exp(-softplus(linear(z, heads)))
  c = exp(-softplus(split(linear(z), heads)))
  r = sigmoid(linear(z, heads))
  a = l2norm(split(linear(z), heads))
  b = split(linear(z), heads)
  d = l2norm(split(linear(z), heads))
  BODY
  return Z[d] * g * r + a + b + c
}
"""
LAYERS = {
    "Z[a] <- b minimize meet by walk(r = 1)": "linear attention",
    "Z *= 0.9; Z[a] <- b minimize meet by walk(r = 1)": "RetNet",
    "Z[a] <- b minimize meet by walk(r = 1) retain g": "Mamba-2",
    "Z[a] <- b minimize meet by walk(r = 1) retain c": "gated linear attention, GLA",
    "Z[a] <- b minimize gap by walk(r = r)": "DeltaNet (Yang et al. 2024)",
    "Z[a] <- b minimize gap by walk(r = 2 * r)": "DeltaNet (Yang et al. 2024) with write strength 2 sigma",
    "Z *= g; Z[a] <- b minimize gap by walk(r = r * 2)": "Gated DeltaNet (Yang et al. 2025) with write",
    "Z *= c; Z[a] <- b minimize gap by walk(r = r)": "Kimi Delta Attention",
    "Z[a] <- b minimize gap by exact(r = r)": "Longhorn, the exact step",
    "Z[a] <- b minimize gap by roll(r = r, keep = g) retain g": "Titans, a matrix memory with momentum",
    "Z[a] <- b minimize meet by pull(r = r) retain g": "the gated delta rule of Hope",
    "Z[a] <- b minimize gap by walk(r = r); Z[d] <- a minimize gap by walk(r = r)": "DeltaProduct, 2 steps",
    "Z *= g; write Z { [a] <- b minimize gap by walk(r = r); [a] <- 0 minimize gap by walk(r = g) }": "Comba",
}
DEEP = {
    "Z[a] <- b minimize gap over 4 tokens by walk(r = r) retain g": "OmegaNet",
    "Z[a] <- b minimize gap by roll(r = r, keep = g) gradient every 4 tokens": "Titans, a deep memory",
    "Z[a] <- b minimize gap by walk(r = r) gradient every 4 tokens": "a TTT layer",
    "Z[a] <- b minimize gap by spread(r = r, keep = g) gradient every 4 tokens": "Memora",
}


def dynamics(body: str, memory: str = "matrix()") -> Dynamics:
    return explain(WORDS.replace("BODY", body).replace("MAP", memory), dim=8).equations[0]


@pytest.mark.parametrize("body", [*LAYERS, *DEEP])
def test_known_in_own_words(body: str) -> None:
    name = LAYERS.get(body) or DEEP[body]
    assert dynamics(body, "matrix()" if body in LAYERS else "mlp(1)").known_as.startswith(name)


NO_ERASE = [
    "write Z { [a] <- b minimize gap by walk(r = r); [d] <- a minimize meet by walk(r = 1) }",
    "write Z { [a] <- 0 minimize meet by walk(r = r); [d] <- b minimize meet by walk(r = 1) }",
    "write Z { [a] <- 0 minimize gap by walk(r = -r); [d] <- b minimize meet by walk(r = 1) }",
    "write Z { [a] <- 0 minimize gap by walk(r = -0.5); [a] <- b minimize meet by walk(r = 1) }",
]


def test_two_terms_that_both_erase_are_not_rwkv() -> None:
    both = "write Z { [a] <- 0 minimize gap by walk(r = r); [d] <- b minimize gap by walk(r = r) }"
    assert dynamics(both).known_as == ""


@pytest.mark.parametrize("body", NO_ERASE)
def test_two_terms_of_which_none_only_erases_are_not_rwkv(body: str) -> None:
    assert dynamics(body).known_as == ""
    first = body[body.index("[a]") : body.index(";")]
    erasing = dynamics(body.replace(first, "[a] <- 0 minimize gap by walk(r = r)"))
    assert erasing.known_as.startswith(("RWKV-7", "Comba"))


def test_gates_without_a_name_get_a_letter() -> None:
    """And one that nothing else in the block bears; what it stands for is said."""
    write = "Z[a] <- b * eta minimize gap by walk(r = 2 * sigmoid(linear(z, heads))) retain sigmoid(mean(z))"
    body = f"eta = r; {write}"
    found = explain(WORDS.replace("BODY", body).replace("MAP", "matrix()"), dim=8)
    row = found.equations[0]
    assert row.formulas[0].text.startswith("Z_t = Z_{t-1} (alpha_t I - r2_t a_t a_t^T) + r2_t vhat_t a_t^T")
    where = [f.text for f in row.where]
    assert "r2_t = 2 * sigmoid(linear(z))" in where and "alpha_t = sigmoid(mean(z))" in where
    assert dict(row.gates) == {"r2": "(0, 2)", "alpha": "(0, 1)"}
    assert not re.search(r"_write_|_sigmoid|_mul", str([found.equations, found.levels]))


def test_a_rate_is_called_eta() -> None:
    write = "S[x] <- x by gd(lr = sigmoid(mean(x)))"
    text = f"block b(x) {{ level t every 1 token {{ memory S = matrix() }}; {write}; return S[x] }}"
    assert (
        explain(text, dim=4).equations[0].formulas[0].text.startswith("S_t = S_{t-1} (I - eta_t x_t x_t^T)")
    )


def test_momentum_has_two_eigenvalues() -> None:
    """The condition is that of the companion matrix: spectral radius below one inside and only there."""
    step = dynamics("Z[a] <- b minimize gap by roll(r = r, keep = 0.5) retain g").transition
    assert step is not None and step.verdict == "contracts" and step.negative
    assert step.admissible == "0 < r < (1 + g) (1 + 0.5)"
    draw = np.random.default_rng(0)
    for keep, beta, erase in draw.uniform(0, 1, (200, 3)) * [1, 1, 6]:
        matrix = np.array([[keep - erase, beta], [-erase, beta]])
        radius = abs(np.linalg.eigvals(matrix)).max()
        assert (radius < 1) == (0 < erase < (1 + keep) * (1 + beta)), (keep, beta, erase)
    wild = dynamics("Z[a] <- b minimize gap by roll(r = 5 * r, keep = 0.5) retain g").transition
    assert wild is not None and wild.verdict == "expands"


def test_ranges_go_through_outer_parts_and_powers() -> None:
    retnet = explain("retnet", block="retnet", dim=16, heads=2).equations[0]
    assert dict(retnet.gates)["gamma"] == "[0.9688, 0.9844]"
    assert dict(explain("mamba1", block="mamba1", dim=16).equations[0].gates)["decay"] == "(0, 1)"
    assert dict(explain("srwm", block="srwm", dim=16, heads=2).equations[0].gates)["r1"] == "(0, 1)"


def test_the_erases_of_one_key_add_up() -> None:
    comba = explain("comba", block="comba", dim=16, heads=2).equations[0].transition
    assert comba is not None and comba.factor == "alpha (1 - erase)" and comba.verdict == "contracts"


def test_every_matrix_form_is_a_recurrence() -> None:
    for name in ("rwkv7", "ojanet"):
        assert explain(name, block=name, dim=16, heads=2).equations[0].letter == "R"


def test_a_dual_decays_by_itself() -> None:
    row = explain("memora", block="memora", dim=16, heads=2).equations[0]
    assert row.letter == "N" and [f.text for f in row.formulas] == [
        "A_t = alpha_t A_{t-1} - eta_t d z^T",
        "W_t = softmax(A_t)",
    ]
    assert {n for n, _ in row.transitions} == {"the dual of W1", "the dual of W2"}
    assert row.transition is not None and row.transition.verdict == "contracts"
