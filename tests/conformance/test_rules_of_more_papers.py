"""Rules whose memories start again at a number, are copied by `for`, hold a few directions, or jump."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import nldsl
from nldsl.certify import rules_in, verify, verify_rules
from tests.conformance.rules_of_more_papers import MORE
from tests.conformance.test_rules_of_papers import MODEL, SHAPES, drawn

BLOCK = """
block uses(x) {{
  level l every 4 tokens {{ memory M = matrix() init learned }}
  k = l2norm(linear(x))
  M[k] <- linear(x)  minimize l2  by {}  at commit
  return linear(M[k])
}}
"""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MORE)
def test_fifty_steps_equal_the_loop(name: str, shape: str) -> None:
    text, call, by_hand = MORE[name]
    plan = nldsl.program(text + MODEL.format(call)).train
    assert plan is not None
    weight = nn.Parameter(drawn(SHAPES[shape], 1))
    ready, wanted, state = (
        nldsl.optimizer(plan.groups[0], [weight]),
        weight.detach().clone(),
        dict[str, Any](),
    )
    for step in range(1, 51):
        g = drawn(SHAPES[shape], 100 + step)
        weight.grad = g.clone()
        ready.step()
        wanted = by_hand(wanted, g, state, step)
    assert float((weight.detach() - wanted).abs().max()) <= 1e-12 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", [n for n in MORE if n != "low_rank"])
def test_the_same_text_as_an_optimizer_and_inside_of_a_write(name: str) -> None:
    text, call, _ = MORE[name]
    assert verify_rules(rules_in(text, {}), name).passed
    if name not in ("spam", "restarts"):  # of a root at zero there is no gradient; a cosine of tokens is slow
        assert verify(text + BLOCK.format(call)).passed


def test_copies_of_a_memory_are_states_of_their_own() -> None:
    weight = nn.Parameter(torch.zeros(3, 2))
    ready = nldsl.optimizer(MORE["aggmo"][0], [weight])
    weight.grad = torch.ones(3, 2)
    for _ in range(2):
        ready.step()
    held = [float(t[0, 0]) for name, t in ready.state[weight].items() if name.startswith("v")]
    assert held == pytest.approx([1.0, 1.9, 1.99])


WRONG = [
    ("memory m = like(W)\n  memory m = like(W)\n  m = g\n  W = W - lr * m", "NL0310", "declared twice"),
    (
        'mode = "a"\n  every 2 steps { mode = "b" }\n  if mode == "a" { W = W - lr * g }',
        "NL0408",
        "cannot change",
    ),
    ("W = W - lr * where(step > 3 and step < 9, 1, 2) * g", "NL0403", "`a * b` is 1 where both are"),
    ("W = W - lr * where(true, g, 2 * g)", "NL0404", "`if` chooses"),
    ("memory m = like(W)\n  m = mean(g)\n  W = W - lr * m", "NL0401", "has the shape [3, 2]"),
]


@pytest.mark.parametrize(("body", "code", "said"), WRONG, ids=[code for _, code, _ in WRONG])
def test_what_is_wrong_is_said(body: str, code: str, said: str) -> None:
    with pytest.raises(nldsl.SpecError) as caught:
        nldsl.optimizer(f"rule wrong(lr = 1) {{\n  {body}\n}}\n", [nn.Parameter(torch.zeros(3, 2))])
    found = [(d.code, " ".join((d.message, d.label, d.help))) for d in caught.value.diagnostics]
    assert any(c == code and said in told for c, told in found), found


def test_a_choice_on_a_number_that_is_known() -> None:
    layer = nldsl.compile(
        "block f(x) { return where(1, x, 2 * x) + where(0, x, 3) + where(1, 5, 7) * x }", dim=4
    )
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(layer(x)[0], 6 * x + 3)


def test_a_polynomial_of_a_matrix_is_not_multiplied_out() -> None:
    """Five steps of a quintic in a write: `3125` products of gradients, which nobody asks for."""
    text = """rule quintic(lr = 1e-2) {
      X = g / (sqrt(sum(sum(g ** 2))) + 1e-7)
      repeat 5 {
        A = X @ transpose(X)
        X = 3.4 * X + (-4.7 * A + 2.03 * A @ A) @ X
      }
      W = W - lr * X
    }
    block uses(x) {
      level l every 1 token { memory M = matrix() init zero }
      k = l2norm(linear(x))
      M[k] <- linear(x)  minimize l2  by quintic()
      return linear(M[k])
    }
    """
    assert "too large to analyse" in str(nldsl.explain(text, dim=4).to_json())


def test_a_rule_that_diverges_is_told_so() -> None:
    """What is not finite in both forms cannot be compared, and was called a difference."""
    text = "rule wild(lr = 1) { memory m = like(W); m = 1e30 * m * m * m + 10 * g; W = W - lr * m }"
    found = verify_rules(rules_in(text, {}), "wild")
    assert found.passed and "from step" in found.text() and "it diverges" in found.text()
