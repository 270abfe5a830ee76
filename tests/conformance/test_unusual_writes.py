"""Writes as a person with an idea of their own says them: compiled forms, the interpreter, what is told."""

from __future__ import annotations

import re

import pytest
import torch

import nldsl
from nldsl.certify import verify
from nldsl.diagnostics import Diagnostic, SpecError
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.plan.plan import Unit
from nldsl.review import check
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements, inputs_of, run_interpreter

HEADS = "k = l2norm(split(linear(x), 2)); v = split(linear(x), 2); a = sigmoid(linear(x, 2))"
CHANNELS = "w = sigmoid(split(linear(x), 2))"


def block(body: str, *, every: int = 1, memory: str = "matrix()", before: str = "", more: str = "") -> str:
    """A block with a memory `S` of two heads, keys, values and a gate."""
    used = "; ".join(v for v in f"{HEADS}; {CHANNELS}".split("; ") if re.search(rf"\b{v[0]}\b", body))
    return (
        f"{before}\nblock b(x) {{\n"
        f"  level c every {every} tokens {{ memory S = {memory} per head(2) {more} }}\n"
        f"  {used}\n  {body}\n  return linear(merge(S[l2norm(split(linear(x), 2))]))\n}}\n"
    )


def unit(text: str) -> Unit:
    """How the memory is computed."""
    plan = plan_program(open_program(text, dim=8))
    return next(u for b in plan.blocks for u in b.units if "S" in u.memories)


def test_adding_an_outer_product_is_a_hebbian_write() -> None:
    said = open_program(block("S *= a; S += 0.5 * outer(v, k)"), dim=8).root.body
    written = open_program(block("S *= a; S[k] <- 0.5 * v minimize dot by gd(lr = 1)"), dim=8).root.body
    kinds = [type(s).__name__ for s in said]
    assert kinds.count("Write") == 1 and len(said) == len(written)
    assert unit(block("S *= a; S += 0.5 * outer(v, k)")).lowering == "linear"


@pytest.mark.parametrize("every", [1, 3])
def test_sums_of_outer_products(every: int) -> None:
    text = block("S *= a; S += a * outer(v, k) / 2 - outer(k, v); S[k] <- v by gd(lr = 0.3)", every=every)
    assert verify(text).passed
    assert not [d for d in check(text) if d.code == "NL0434"]


GATED = "S *= a; S[k] <- v by gd(lr = a)"
PRINTED = {
    "S *= a; S += a * outer(v - S[k], k)": ("delta", GATED, "Gated DeltaNet"),
    "S *= a; r = S[k]; S += outer(a * (v - r), k)": ("delta", GATED, "Gated DeltaNet"),
    "S *= a; S += -a * outer(S[k] - v, k)": ("delta", GATED, "Gated DeltaNet"),
    "S += outer(0.5 * (v - S[k]), k) * a / 2": ("delta", "S[k] <- v by gd(lr = a * 0.5 / 2)", "DeltaNet"),
    "S *= w; S += a * outer(v - S[k], k)": ("delta_channel", "S *= w; S[k] <- v by gd(lr = a)", "Kimi Delta"),
    "S *= a; S += a * outer(v - S[k], k) + 0.1 * outer(k, v)": (
        "delta_block",
        "S *= a; write S { [k] <- v by gd(lr = a); [v] <- 0.1 * k minimize dot by gd(lr = 1) }",
        "",
    ),
}
"""The delta rule as papers print it: its form, the write that it is, and what it is called."""


@pytest.mark.parametrize("body", PRINTED)
def test_the_delta_rule_as_it_is_printed(body: str) -> None:
    """What the read and the sum say one by one: a vector of ones is no number, so that stays as it is."""
    lowering, write, name = PRINTED[body]
    text, literally = block(body), block(body.replace("S[k]", "S[k] * (0 * v + 1)"))
    assert unit(text).lowering == lowering and unit(literally).lowering == "sequential"
    (memory,), (written,) = (explain(t, dim=8).equations for t in (text, block(write)))
    assert memory.letter == "R" and memory.spectrum == written.spectrum
    assert memory.known_as == written.known_as and memory.known_as.startswith(name)
    layers = [compiled(t, x=8) for t in (text, literally)]
    assert all(disagreements(layer) == [] for layer in layers)
    (x,) = inputs_of(layers[0], 2, 7)
    mine, theirs = (run_interpreter(layer, [x]) for layer in layers)
    torch.testing.assert_close(mine[0][0], theirs[0][0], rtol=1e-12, atol=1e-12)
    assert mine[0][0].abs().max() > 1e-3


@pytest.mark.parametrize(
    "body",
    [
        "r = S[k]; S *= a; S += a * outer(v - r, k)",
        "r = S[k]; S[v] <- k by gd(lr = 0.1); S += a * outer(v - r, k)",
        "S += a * outer(v - tanh(S[k]), k)",
        "S += outer(w * (v - S[k]), k)",
    ],
)
def test_other_reads_are_no_error_at_the_key(body: str) -> None:
    """Another state, a function of the answer, a rate per channel: as the program says."""
    assert unit(block(body)).lowering == "sequential"
    assert disagreements(compiled(block(body), x=8)) == []


@pytest.mark.parametrize("body", ["S += a * outer(v, k)", "S += a * outer(v - S[k], k)"])
@pytest.mark.parametrize(
    "own",
    [
        "rule gd(lr) { W = W - 5 * lr * g }",
        "objective dot(pred, target) { return 7 * sum(pred * target) }",
        "objective l2(pred, target) { return 7 * sum((pred - target) ** 2) }",
    ],
)
def test_a_sum_is_a_sum_whatever_the_author_calls_gd(body: str, own: str) -> None:
    layers = [compiled(block(body, before=before), x=8) for before in ("", own)]
    (x,) = inputs_of(layers[0], 2, 5)
    plain, beside = (run_interpreter(layer, [x])[0][0] for layer in layers)
    assert torch.equal(plain, beside) and plain.abs().max() > 1e-3


def test_a_factor_with_channels_is_refused() -> None:
    for body in ("S += w * outer(v, k)", "S += w * outer(v - S[k], k)"):
        with pytest.raises(SpecError) as refused:
            open_program(block(body), dim=8)
        (found,) = refused.value.diagnostics
        assert found.code == "NL0418" and found.help == "scale one of its two vectors: `outer(a * v, k)`"


def test_a_commit_has_no_single_token() -> None:
    text = block("S[k] <- v  by dgd(lr = 0.1)  at commit  retain a", every=4)
    with pytest.raises(SpecError) as refused:
        open_program(text, dim=8)
    (found,) = refused.value.diagnostics
    assert found.code == "NL0421" and "asks for `x` of one token" in found.message
    assert found.edit is not None and found.edit.span.text.strip() == "at commit"


def test_a_map_of_one_vector() -> None:
    text = block(
        "S[k] <- v by gd(lr = a) retain 0.9",
        memory="scale()",
        before="map scale(z) { s = weight(dim(z)); return s * z }",
    )
    assert verify(text).passed


def test_resets_between_commits_are_seen() -> None:
    text = (
        "block b(x) {\n  level slow every 8 tokens { memory P = matrix() per head(2) init learned }\n"
        "  level fast every 2 tokens { memory S = matrix() per head(2) init P reset every 8 tokens }\n"
        f"  {HEADS.rpartition(';')[0]}\n  P[k] <- v by gd(lr = 0.1)\n  S[k] <- v by gd(lr = 0.1)\n"
        "  return linear(merge(S[k] + P[k]))\n}\n"
    )
    assert verify(text).passed


def test_slopes_are_looked_for_where_values_do_not_jump() -> None:
    text = block("S[k] <- v by signed(lr = 0.01)", every=4, before="rule signed(lr) { W = W - lr * sign(g) }")
    found = verify(text)
    assert found.passed
    slopes = [r for s in found.sections for r in s.checks if r.name == "finite differences"]
    assert slopes and all(r.cases for r in slopes)


REASONS = {
    "momentum_channels": ("S[k] <- v by momentum(lr = a, beta = 0.5) retain w", "every channel a filter"),
    "sides": (
        "write S { [k] <- v minimize oja by gd(lr = 0.1)\n  [k] <- 0 minimize l2 by gd(lr = a) }",
        "along the key and some along the value",
    ),
    "value_rate": ("S[k] <- v by gd(lr = values(w))", "a rate per value channel"),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_form_that_goes_token_by_token_says_what_stands_against(case: str) -> None:
    body, wanted = REASONS[case]
    found = unit(block(body))
    assert found.lowering == "sequential" and wanted in found.reason


def test_names_are_for_what_has_one() -> None:
    mixed = block("S[k] <- v by momentum(lr = 0.1, beta = 0.5); S[v] <- k minimize dot by gd(lr = 0.1)")
    two = block(
        "write S { [k] <- v minimize l2 by momentum(lr = 0.1, beta = 0.9)\n"
        "  [v] <- k minimize dot by momentum(lr = 0.1, beta = 0.9) }"
    )
    for text in (mixed, two):
        (memory,) = explain(text, dim=8).equations
        assert memory.known_as == ""
    itself = block("S *= 0.9; S += 0.5 * outer(v - tanh(S[k]), k)")
    assert explain(itself, dim=8).equations[0].known_as == ""


def only(text: str) -> Diagnostic:
    (found,) = check(text)
    return found


def test_findings_call_rates_as_a_person_does() -> None:
    text = block("S[k] <- v by gd(lr = 4 * sigmoid(linear(x, 2))) retain sigmoid(linear(x, 2))")
    found = only(text)
    assert "`alpha - eta`" in found.message and "`eta` below `1 + alpha`" in found.help
    assert [label.text for label in found.secondary] == [
        "`eta` is between 0 and 4",
        "`alpha` is between 0 and 1",
    ]


def test_a_gate_beyond_one_is_told_where_it_acts() -> None:
    assert "away from its key by 1.2" in only(block("S[k] <- v by gd(lr = 0.5) retain 1.2")).message


QUOTIENTS = """
block quotients(x, heads = 2, chunk = 4) {
  level context every chunk tokens { memory V, S = matrix() per head init learned }
  z = split(x, heads)
  v = V[z] / sum(z ** 2)
  k = l2norm(S[v] + z)
  V[z] <- v / sum(V[z] ** 2)  minimize l2  by gd(lr = 0.02)
  S[k] <- log(sum(S[k] ** 2)) * z  minimize l2  by gd(lr = 0.1)
  return merge(S[z] + v)
}
"""
"""Quotients and logarithms inside of the cycle, of values of the token and of reads."""


def test_slots_without_a_token_make_no_gradient_infinite() -> None:
    torch.manual_seed(0)
    layer = nldsl.compile(QUOTIENTS, x=8).double()
    x = torch.randn(2, 11, 8, dtype=torch.float64)
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[0, [1, 6, 7]] = mask[1, 9:] = False
    weights = list(layer.parameters())
    y = layer(x, mask=mask)[0]
    padded = torch.autograd.grad(y[mask].sin().sum(), weights)
    apart = sum(layer(x[n, mask[n]][None])[0].sin().sum() for n in range(2))
    wanted = torch.autograd.grad(apart, weights)
    for got, want in zip(padded, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


NORMALISED = """
block normalised(x, heads = 2) {
  level context every 1 token {
    memory S = matrix() per head init zero
    memory z = matrix(out = 1) per head init zero
  }
  k = 1 + relu(split(conv(x, 2), heads))
  S[k] <- split(linear(x), heads)  minimize dot  by gd(lr = 1)
  z[k] <- 1  minimize dot  by gd(lr = 1)
  return linear(merge(S[k] / sum(z[k])) / sum(conv(x, 2) ** 2) ** 0.5)
}
"""
"""Linear attention with its normaliser, and a root: both infinite where nothing has been read."""

NORMS = """
rule unit(lr) { W = W - lr * g / sqrt(sum(sum(g ** 2))) }
block norms(x, chunk = 3) {
  level context every chunk tokens { memory M = mlp(1) }
  M[x] <- linear(x)  minimize l2  by unit(lr = 0.1)  at commit  retain 0.9 toward init
  return linear(M[x])
}
"""
"""A rule that has no gradient where nothing was gathered."""


@pytest.mark.parametrize("lowering", ["auto", "sequential"])
@pytest.mark.parametrize("text", [NORMALISED, NORMS, NORMS.replace("mlp(1)", "matrix()")])
def test_an_empty_document_makes_no_gradient_infinite(text: str, lowering: str) -> None:
    layer = compiled(text, lowering, dim=8)
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[0, :3] = mask[1] = mask[2, 5:] = False
    for pieces in (None, (4, 1, 3)):
        assert not disagreements(layer, tokens=8, batch=3, mask=mask, pieces=pieces)


@pytest.mark.parametrize("lowering", ["auto", "sequential"])
@pytest.mark.parametrize("text", [NORMALISED, NORMS, QUOTIENTS])
def test_a_call_of_padding_alone_makes_no_gradient_infinite(text: str, lowering: str) -> None:
    layer = compiled(text, lowering, dim=8)
    for tokens, batch, pieces in ((5, 3, None), (1, 1, None), (5, 2, (2, 3))):
        mask = torch.zeros(batch, tokens, dtype=torch.bool)
        assert not disagreements(layer, tokens=tokens, batch=batch, mask=mask, pieces=pieces)
    # A call of padding in front of one with tokens, and behind it.
    for real in (slice(2, 5), slice(0, 2)):
        mask = torch.zeros(2, 5, dtype=torch.bool)
        mask[:, real] = True
        assert not disagreements(layer, tokens=5, batch=2, mask=mask, pieces=(2, 3))


def test_padding_may_be_anything() -> None:
    layer = nldsl.compile(NORMALISED, dim=8)
    x, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    mask[0, 3:] = False
    wanted, _ = layer(x, mask=mask)
    for padding in (0.0, float("nan"), 1e30):
        x[0, 3:] = padding
        y, _ = layer(x, mask=mask)
        assert torch.equal(y, wanted)
        found = torch.autograd.grad(y.square().sum(), list(layer.parameters()))
        assert all(bool(g.isfinite().all()) for g in found)


AGAIN = {
    "S[k] <- v minimize dot by gd(lr = 0.1) retain a; y = S[tanh(S[k])]": "linear",
    "y0 = S[k]; S[k] <- v by gd(lr = a); y = S[S[y0]]": "delta",
}


@pytest.mark.parametrize("body", AGAIN)
def test_reads_that_ask_again_are_parallel(body: str) -> None:
    text = block(body).replace("merge(S", "merge(y + S")
    assert unit(text).lowering == AGAIN[body]


def test_attention_is_asked_again() -> None:
    text = (
        "block hops(x) {\n  memory S = softmax()\n  S[linear(x)] <- linear(x)\n  q = linear(x)\n"
        "  for hop in [1, 2, 3] { q = S[q] }\n  return q\n}\n"
    )
    assert unit(text).lowering == "attention" and verify(text).passed


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("sum((p - sum(p) - t) ** 2)", "mix or weigh the channels of its answer"),
        ("sum(t * (p - t) ** 2)", "mix or weigh the channels of its answer"),
        ("sum((p - t) ** 2) ** 2", "are not linear in it"),
    ],
)
def test_why_gradients_at_every_token_are_not_parallel(objective: str, said: str) -> None:
    own = f"objective own(p, t) {{ return {objective} }}"
    found = unit(block("S[k] <- v minimize own by gd(lr = 0.1)", before=own))
    assert found.lowering == "sequential" and said in found.reason
