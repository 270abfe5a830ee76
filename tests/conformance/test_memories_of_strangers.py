"""Memories that the library does not have, against literal recurrences, and what they ask of the language."""

from __future__ import annotations

import pytest
import torch

from nldsl.certify import growth
from nldsl.certify.bench import Bench, build_module
from nldsl.certify.clocks import ClockSet
from nldsl.certify.examine import prepare
from nldsl.diagnostics import SpecError
from nldsl.graph import open_program
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements, inputs_of, run_compiled
from tests.conformance.strangers import KALMAN, STRANGERS, block
from tests.conformance.strangers_again import AGAIN

ALL = STRANGERS | AGAIN


@pytest.mark.parametrize("stranger", ALL)
def test_what_the_mathematics_says(stranger: str) -> None:
    """Values in one call and in pieces, and gradients, of three sequences of 19 tokens."""
    text, recurrence, letters, forms = ALL[stranger]
    layer = compiled(text, dim=8)
    (x,) = inputs_of(layer, 3, 19)
    p = layer.parameter_paths()
    theirs = torch.stack([torch.stack([y.flatten() for y in recurrence(p, row)]) for row in x])
    theirs = theirs @ p["out.linear.weight"].T
    wanted = torch.autograd.grad(theirs.sin().sum(), [x, *p.values()])
    assert theirs.abs().max() > 0.1 and all(w.abs().max() > 1e-3 for w in wanted)
    for pieces in (None, (9, 1, 9)):
        mine = run_compiled(layer, [x], pieces=pieces)[0][0]
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
        got = torch.autograd.grad(mine.sin().sum(), [x, *p.values()])
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)
    assert {u.lowering for b in layer.plan.blocks for u in b.units if u.memories} == forms
    assert "".join(e.letter for e in explain(text, dim=8).equations) == letters


@pytest.mark.parametrize("stranger", ALL)
def test_padding_and_states(stranger: str) -> None:
    layer = compiled(ALL[stranger][0], dim=8)
    mask = torch.rand(3, 11, generator=torch.Generator().manual_seed(1)) > 0.3
    assert disagreements(layer, tokens=11, batch=3, mask=mask, pieces=(4, 1, 6)) == []


HEADWISE = {
    "a vector": "return headwise(R, x)",
    "a vector that is the same everywhere": "return x + headwise(R, weight(dim(x)))",
    "a matrix of the token": "return headwise(outer(x, linear(x)), x)",
    "both": "return headwise(outer(x, linear(x)), weight(dim(x)))",
    "a state": "h += tanh(linear(x) + headwise(R, h[1])); return linear(h[1])",
    "a commit": "C[x] <- headwise(R, C[linear(x)]) by gd(lr = 0.3); return linear(C[x])",
}


@pytest.mark.parametrize("which", HEADWISE)
def test_one_matrix_and_no_heads(which: str) -> None:
    """`headwise` of vectors failed, or had another shape, where the matrix stood in a loop over tokens."""
    body = HEADWISE[which]
    memories = [m for m in ("h = matrix(out = dim(x), in = 1)", "C = matrix()") if f"{m[0]}[" in body]
    every = "3 tokens" if "C[" in body else "1 token"
    level = "".join(f"level c every {every} {{ memory {m} }}; " for m in memories)
    matrix = "R = weight(dim(x), dim(x)); " if "(R" in body else ""
    layer = compiled(f"block b(x) {{ {level}{matrix}{body} }}", dim=8)
    (x,) = inputs_of(layer, 3, 7)
    assert layer(x)[0].shape == (3, 7, 8)
    assert disagreements(layer, tokens=7, batch=3, pieces=(2, 1, 4)) == []


PLAIN = "P[k] <- k minimize dot by gd(lr = 1) retain 0.9"
SOLVED = {
    "above the sum": ("linear", PLAIN, f"g = solve(P, k)\n{PLAIN}"),
    "exact": ("sequential", "iterations = 6", "iterations = 0"),
    "gates per channel": ("linear_channel", "retain 0.9", "retain sigmoid(split(linear(x), heads))"),
    "erases": ("delta", PLAIN, "P[k] <- k by gd(lr = 0.3)"),
    "resets": ("linear", "matrix() per head", "matrix() per head reset every 5 tokens"),
}


@pytest.mark.parametrize("which", SOLVED)
def test_a_solution_is_a_value(which: str) -> None:
    form, old, new = SOLVED[which]
    text = KALMAN.replace(old, new)
    if "g = solve" in new:
        text = text.replace("  g = solve(P, k, ridge = 1, iterations = 6)\n", "")
    layer = compiled(text, dim=8)
    units = [u for b in layer.plan.blocks for u in b.units if "P" in u.memories]
    assert [u.lowering for u in units] == [form]
    assert disagreements(layer, tokens=11, batch=3, pieces=(4, 1, 6)) == []


REFUSED = {
    "S[k] <- v weighted split(linear(x), heads) by gd(lr = 0.1)": (
        "NL0418",
        "`weighted` takes one number per head of `S`, found a headed [2, 4]",
    ),
    "N[k] <- linear(x, 6) by gd(lr = 1); g = solve(N, k); S[g] <- v by gd(lr = 0.1)": (
        "NL0401",
        "`solve` needs a square matrix of 4 channels, `N` is a matrix [3, 4]",
    ),
    "F[k] <- v by gd(lr = 1); S[k] <- S[solve(F, q)] by gd(lr = 0.1)": (
        "NL0401",
        "`solve` needs a square matrix of 4 channels, `F` is no `matrix()`",
    ),
    "S /= linear(x, heads); S[k] <- v by gd(lr = 0.1)": ("NL0421", "`/=` cannot change a memory"),
}
AFFINE = "map affine(z) { W = weight(dim(z), dim(z)); c = weight(dim(z)); return W @ z + c }\n"
MEMORIES = {"S": "matrix()", "N": "matrix(out = 3)", "F": "affine()"}


@pytest.mark.parametrize("body", REFUSED)
def test_what_has_no_meaning_is_said(body: str) -> None:
    """Weights per channel and systems that are not square ended in an error of torch."""
    used = "; ".join(f"memory {m} = {made} per head" for m, made in MEMORIES.items() if f"{m}[" in body)
    with pytest.raises(SpecError) as refused:
        open_program(AFFINE + block(used, f"{body}\ny = S[q]"), dim=8)
    found = [(d.code, d.message) for d in refused.value.diagnostics if d.severity == "error"]
    assert found == [REFUSED[body]]


def test_something_is_taken_away_from_a_vector() -> None:
    texts = [
        block("memory h = matrix(in = 1) per head", f"h *= 0.5; h {step}\ny = h[1] + q")
        for step in ("-= v * k", "+= -v * k")
    ]
    layers = [compiled(text, dim=8) for text in texts]
    (x,) = inputs_of(layers[0], 2, 7)
    assert torch.equal(layers[0](x)[0], layers[1](x)[0]) and disagreements(layers[0]) == []


NAMES = {
    "a = sigmoid(linear(x, heads)); S = a * S + outer(v - a * (S @ k), k)": ["Gated"],
    "S = S @ (diag(sigmoid(v)) - outer(k, sigmoid(q) * k)) + outer(v, k)": [""],
    "a = S[k]; b = T[k]; S[k] <- v - b by gd(lr = 0.2); T[k] <- v - a by gd(lr = 0.1)": ["", ""],
    "a = S[k]; S[k] <- v by gd(lr = 0.2); T[k] <- v - a by gd(lr = 0.1)": ["DeltaNet", "DeltaNet"],
    "S[k] <- v minimize dot by gd(lr = 1); T[k] <- k minimize dot by gd(lr = 1)": ["MesaNet", "MesaNet"],
    "S[k] <- v minimize dot by gd(lr = 1); T += outer(k, k) - outer(shift(k), shift(k))": ["MesaNet", ""],
}


@pytest.mark.parametrize("body", NAMES)
def test_a_name_only_where_it_is_due(body: str) -> None:
    """Rates per channel are no Comba, two that teach each other no DeltaNet, a window no MesaNet."""
    mesa = any(n == "MesaNet" for n in NAMES[body])
    read = "y = S[solve(T, q)]" if mesa else "y = S[q] + T[q]" if "T" in body else "y = S[q]"
    text = block(
        "memory S, T = matrix() per head" if "T" in body else "memory S = matrix() per head",
        f"{body}\n{read}",
    )
    found = [e.known_as for e in explain(text, dim=8).equations]
    assert [f.partition(" ")[0].rstrip(",") for f in found] == NAMES[body]


CHAOS = """
rule heavy(lr) { memory r, s = like(W); r = 0.9 * r + g; s = 0.5 * s + r; W = W - lr * s }
map tiny(z) { U = weight(6, dim(z)); D = weight(dim(z), 6); return D @ tanh(U @ z) }
block b(x) {
  level c every 1 token { memory M = tiny() }
  k = l2norm(linear(x))
  M[k] <- linear(x) by heavy(lr = 0.4) gradient every 4 tokens
  return linear(M[k])
}
"""


def test_a_program_that_amplifies_is_no_fault_of_its_compiled_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding at every token outgrows that of the parameters: the interpreter in float32 is as far off."""
    given = prepare(open_program(CHAOS, dim=8), ClockSet("test"), 0, lambda _: None, both=False)
    bench = Bench(given.program, given.plan, build_module, 0, given.values, given.reference, given.lengths)
    _, found = growth.float32_growth(bench)
    assert found.passed and "the interpreter in float32 is off by" in found.where
    assert "64 tokens" in found.where and found.where.endswith("the program amplifies")
    monkeypatch.setattr(growth, "_literally", lambda *_: 1e-6)
    assert not growth.float32_growth(bench)[1].passed
