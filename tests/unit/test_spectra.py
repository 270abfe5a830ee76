"""What `explain` says of spectra beyond one key, and of `torch.export`; a warning about probabilities."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from nldsl.review import check
from nldsl.view import explain, render_explanation
from nldsl.view.equations import Dynamics


def dynamics(name: str, memory: str) -> Dynamics:
    return next(d for d in explain(name, block=name, dim=16).equations if d.name == memory)


def test_rwkv7_has_real_eigenvalues_within_the_bounds_told() -> None:
    found = dynamics("rwkv7", "S")
    assert "diag(w) - kappa (a kappa)^T" in found.spectrum and "between -0.455 and 1" in found.spectrum
    draw = torch.Generator().manual_seed(0)
    for _ in range(200):
        w = torch.exp(-0.6065306597126334 * torch.rand(8, generator=draw, dtype=torch.float64))
        a = torch.rand(8, generator=draw, dtype=torch.float64)
        kappa = torch.nn.functional.normalize(torch.randn(8, generator=draw, dtype=torch.float64), dim=0)
        values = torch.linalg.eigvals(torch.diag(w) - torch.outer(kappa, a * kappa))
        assert values.imag.abs().max() < 1e-9
        assert -0.455 < values.real.min() and values.real.max() < 1


def test_oja_scales_what_it_holds_along_its_values() -> None:
    (name, step), *more = dynamics("ojanet", "S").transitions
    assert not more and name == "S along its values" and step.factor == "alpha - eta"
    assert step.admissible == "0 < eta < 1 + alpha" and step.negative


def test_where_there_is_none_it_is_said_why() -> None:
    assert "`project rownorm`" in dynamics("lact", "M").spectrum
    text = (
        "objective robust(pred, target) { return sum(softplus(pred - target) + softplus(target - pred)) }\n"
        "block b(x) { level c every 1 token { memory S = matrix() }\n"
        "  S[l2norm(linear(x))] <- linear(x) minimize robust by gd(lr = 0.1) retain 0.9\n"
        "  return S[linear(x)] }\n"
    )
    (found,) = explain(text, dim=8).equations
    assert (
        found.transitions == ()
        and "retention - rate * h, h an eigenvalue of the Gauss-Newton" in found.spectrum
    )


def test_several_terms_of_a_deep_memory_have_no_transition() -> None:
    text = (
        "block b(x) { level c every 4 tokens { memory S = residual_mlp() }\n"
        "  k = l2norm(linear(x))\n"
        "  write S { [k] <- x minimize l2 by gd(lr = 0.1)\n"
        "  [l2norm(x)] <- k minimize l2 by gd(lr = 0.1) } retain 0.9\n"
        "  return S[k] }\n"
    )
    (found,) = explain(text, dim=8).equations
    assert "eigenvalue" not in found.spectrum


@pytest.mark.parametrize("gate", ["S *= 1 - 2 ** (-5 - index(2))", ""])
def test_a_fixed_gate_beside_or_above_the_write_is_retnet(gate: str) -> None:
    text = (
        "block b(x) { level c every 1 token { memory S = matrix() per head(2) }\n"
        f"  {gate}\n  S[linear(x)] <- x minimize dot by gd(lr = 1)"
        f"{'' if gate else ' retain 1 - 2 ** (-5 - index(2))'}\n  return merge(S[linear(x)]) }}\n"
    )
    assert explain(text, dim=8).equations[0].known_as == "RetNet (Sun et al. 2023)"


@pytest.mark.parametrize(("name", "refused"), [("ttt_mlp", True), ("gated_deltanet", False)])
def test_what_export_refuses(name: str, refused: bool) -> None:
    found = explain(name, block=name, dim=16)
    assert bool(found.not_exported) is refused
    page = io.StringIO()
    Console(file=page, width=200).print(render_explanation(found))
    assert ("refused (NL0702): `M`" in page.getvalue()) is refused


MODEL = """
block last(x) {{ return {0} }}
model m(tokens) {{
  x = embed(tokens, 16, 8)
  return last(x)
}}
train m {{
  task next_token
  level l every 1 step {{ rest, head, embeddings by adamw(lr = 1e-3) }}
}}
"""


@pytest.mark.parametrize("op", ["softmax", "sigmoid"])
def test_probabilities_where_scores_are_due(op: str) -> None:
    (found,) = check(MODEL.format(f"{op}(head(x, 16))"))
    assert found.code == "NL0608" and f"`{op}(...)`" in found.message
    assert check(MODEL.format("head(x, 16)")) == []
    assert check(MODEL.format(f"head({op}(x), 16)")) == []


def test_a_missing_size_is_told_with_the_call() -> None:
    (found,) = check("model m(tokens) { return head(embed(tokens, 16, 8)) }")
    assert found.code == "NL0410" and found.help == "`head(x, vocab = ...)`, the same number as `embed` has"


TWO = """rule two(lr, slow) {
  memory m, n = like(W)
  m = 0.5 * m + 0.5 * g
  n = slow * n + (1 - slow) * g
  W = W - lr * (m + 2 * n)
}
block b(x, heads = 2) {
  level context every 1 token { memory S = matrix() per head init zero }
  k    = l2norm(split(linear(x), heads))
  beta = 0.1 + 0.4 * sigmoid(linear(x, heads))
  S[k] <- split(linear(x), heads)  minimize OBJECTIVE  by RULE  retain 0.9
  return linear(merge(S[k]))
}
"""


def written(objective: str, rule: str) -> Dynamics:
    text = TWO.replace("OBJECTIVE", objective).replace("RULE", rule)
    return next(d for d in explain(text, block="b", dim=8).equations if d.name == "S")


def test_two_momenta_are_three_states_whose_eigenvalues_are_told() -> None:
    """`Z = (S, m, n)` along a key: the matrix written out by hand, the rate between 0.1 and 0.5."""
    found = written("l2", "two(lr = beta, slow = 0.8)")
    assert found.letter == "R" and "Z = (S, m, n)" in found.spectrum and not found.transitions

    def largest(lr: float) -> float:
        pull = lr * (0.5 + 2 * 0.2)
        rows = [[0.9 - pull, -lr * 0.5, -lr * 2 * 0.8], [0.5, 0.5, 0.0], [0.2, 0.0, 0.8]]
        return float(torch.linalg.eigvals(torch.tensor(rows, dtype=torch.float64)).abs().max())

    told = [largest(0.1 + 0.4 * i / 8) for i in range(9)]
    assert f"the largest eigenvalue has size {min(told):.3g} .. {max(told):.3g}, and they may be complex" in (
        found.spectrum
    )
    (times,) = (float(w) for w in found.spectrum.split("up to ")[1].split()[:1])
    assert largest(0.5 * times * 0.995) < 1.0 < largest(0.5 * times * 1.01)


def test_a_sum_of_constant_gradients_stays_a_sum_under_any_rule() -> None:
    found = written("dot", "two(lr = beta, slow = 0.8)")
    assert found.letter == "D" and "along" not in found.spectrum and "are real" in found.spectrum


def test_what_steps_beside_its_momentum_is_shown_whole() -> None:
    """Nesterov's rule adds the gradient itself too, and is no Titans."""
    found = written("l2", "nesterov(lr = beta, beta = 0.5)")
    assert any("S_t = 0.9 S_{t-1} - beta_t d z^T + 0.5 m_t" in f.text for f in found.formulas)
    assert not found.known_as and "Z = (S, m)" in found.spectrum


@pytest.mark.parametrize(
    ("first", "second", "letters"),
    [
        ("A[k] <- B[k] + x", "B[k] <- A[k]", "XX"),
        ("A[l2norm(B[k])] <- x", "B[l2norm(A[k])] <- x", "XX"),
        ("A[k] <- x by gd(lr = sigmoid(mean(B[k])))", "B[k] <- x by gd(lr = sigmoid(mean(A[k])))", "XX"),
        ("A[k] <- tanh(A[k])", "B[k] <- x", "XR"),
        ("A[k] <- x", "B[k] <- A[k]", "RR"),
    ],
)
def test_memories_that_read_each_other_are_no_linear_recurrences(
    first: str, second: str, letters: str
) -> None:
    """The class that is told is that of the form that computes them: R where a chunk is parallel."""
    rule = " by gd(lr = 0.1)"
    text = (
        "block two(x) {\n  level context every 1 token { memory A = matrix();  memory B = matrix() }\n"
        f"  k = l2norm(linear(x))\n  {first}{rule * ('by' not in first)}\n"
        f"  {second}{rule * ('by' not in second)}\n  return A[k] + B[k]\n}}\n"
    )
    found = explain(text, x=8)
    assert "".join(d.letter for d in found.equations) == letters
    form = {m: row.lowering for row in found.lowerings for m in row.memories}
    assert [form[d.name] == "sequential" for d in found.equations] == [c == "X" for c in letters]
