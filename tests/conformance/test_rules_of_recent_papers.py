"""Rules of recent papers equal loops by hand, as optimizers and in writes; columns and largest numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import nldsl
from nldsl.calculus.differentiate import cotangents
from nldsl.calculus.evaluate import evaluate
from nldsl.calculus.expression import symbol
from nldsl.calculus.simplify import apply
from nldsl.certify import rules_in, verify, verify_rules
from nldsl.runtime import native
from tests.conformance import rules_of_recent_papers_too as too
from tests.conformance.rules_of_recent_papers import RECENT
from tests.conformance.test_rules_of_more_papers import BLOCK
from tests.conformance.test_rules_of_papers import MODEL, SHAPES, drawn

assert too
NATIVE = ["novograd", "fromage", "stable", "mixture", "adopt", "peaked"]
"""Loops in C with sums and largest numbers between them."""
INSIDE = ["sm3", "adamp", "normuon", "sinkhorn", "dion", "diloco", "ftrl", "scion", "peaked"]


def trained(
    name: str, shape: tuple[int, ...], steps: int, **settings: Any
) -> tuple[Any, Any, dict[str, Any]]:
    text, call, by_hand = RECENT[name]
    plan = nldsl.program(text + MODEL.format(call)).train
    assert plan is not None
    weight = nn.Parameter(drawn(shape, 1))
    ready, wanted = nldsl.optimizer(plan.groups[0], [weight], **settings), weight.detach().clone()
    state = dict[str, Any]()
    for step in range(1, steps + 1):
        g = drawn(shape, 100 + step)
        weight.grad = g.clone()
        ready.step()
        wanted = by_hand(wanted, g, state, step)
    assert float((weight.detach() - wanted).abs().max()) <= 1e-12 * max(1.0, float(wanted.abs().max()))
    return ready, weight, state


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RECENT)
def test_fifty_steps_equal_the_loop(name: str, shape: str) -> None:
    _, _, state = trained(name, SHAPES[shape], 50)
    assert name != "adamp" or shape != "matrix" or state["projected"]  # both sides of the choice are seen


@pytest.mark.skipif(not native.compiler(), reason="no C compiler")
@pytest.mark.parametrize("shape", [(5, 7), (7,), (150, 130)], ids=str)
@pytest.mark.parametrize("name", NATIVE)
def test_loops_in_c_equal_the_loop_by_hand(name: str, shape: tuple[int, ...]) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ready, _, _ = trained(name, shape, 20, form="compiled")
            assert [form for form, _ in ready.forms().values()] == ["compiled"]
    finally:
        torch.set_num_threads(before)


WORST = """rule worst(lr = 1) {
  if rank(W) == 2 { n = largest(largest(g)) } else { n = largest(g) }
  W = W - lr * n
}"""


@pytest.mark.parametrize("form", ["eager", "compiled"])
@pytest.mark.parametrize("at", [0, 3, 19_999])
def test_what_is_no_number_is_the_largest(at: int, form: str) -> None:
    if form == "compiled" and not native.compiler():
        pytest.skip("no C compiler")
    weight = nn.Parameter(torch.ones(20_000, dtype=torch.float64))
    ready = nldsl.optimizer(WORST, [weight], form=form, nonfinite="ignore")
    weight.grad = -drawn((20_000,), 1).abs()
    ready.step()
    assert torch.equal(weight.detach(), torch.full_like(weight, 1) - weight.grad.max())
    weight.grad[at] = float("nan")
    ready.step()
    assert bool(weight.isnan().all())


@pytest.mark.parametrize("name", INSIDE)
def test_the_same_text_as_an_optimizer_and_inside_of_a_write(name: str) -> None:
    text, call, _ = RECENT[name]
    assert verify_rules(rules_in(text, {}), name).passed
    assert verify(text + BLOCK.format(call)).passed


def test_the_largest_error_as_an_objective_and_in_a_map() -> None:
    text = """
    objective worst(pred, target) { return largest((pred - target) ** 2) + 0.1 * sum((pred - target) ** 2) }
    map peak(z) {
      A = weight(dim(z), dim(z))
      y = A @ z
      return y / (1 + largest(y ** 2))
    }
    block uses(x, heads = 2) {
      level l every 3 tokens { memory M = peak() per head }
      k = l2norm(split(linear(x), heads))
      M[k] <- linear(x)  minimize worst  by gd(lr = 0.1)
      return linear(merge(M[k])) * (1 - largest(sigmoid(linear(x, 5))))
    }
    """
    assert verify(text).passed


@pytest.mark.parametrize("shape", [(5,), (3, 4)], ids=str)
def test_numbers_that_are_equally_large_share_the_gradient(shape: tuple[int, ...]) -> None:
    """The derived gradient is that of `amax` of torch, at ties too."""
    x = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    seed = drawn(shape[:-1], 3)
    (x.amax(-1) * seed).sum().backward()
    of = symbol("x", shape, "vector" if len(shape) == 1 else "matrix")
    of_seed = symbol("seed", shape[:-1], "scalar" if len(shape) == 1 else "vector")
    (found,) = cotangents(apply("largest", (of,), {}, 0), (of,), of_seed)[of]
    given = {of: x.detach().numpy(), of_seed: seed.numpy()}
    torch.testing.assert_close(torch.as_tensor(evaluate(found, given)), x.grad)


LOW = """rule low(lr = 1e-2, kept = 4) {{
  if rank(W) == 2 {{
    first, rest = parts(g, kept, dim(g) - kept)
    memory m = like(first)
    m = 0.9 * m + first
    W = W - lr * concat(m, rest)
  }} else {{ W = W - lr * g }}
}}
model m(tokens) {{ return head(embed(tokens, 8, {width}), 8) }}
train m {{ rest by low() }}
"""


def test_a_rule_that_keeps_columns_is_read_at_a_matrix_that_has_them() -> None:
    """The matrix on which a rule is tried first, 3 x 2, has too few; a weight may have too few."""
    plan = nldsl.program(LOW.format(width=8)).train
    assert plan is not None
    weight, other = nn.Parameter(drawn((3, 9), 1)), drawn((3, 9), 1)
    ready, m = nldsl.optimizer(plan.groups[0], [weight]), torch.zeros(3, 4, dtype=torch.float64)
    for step in range(5):
        weight.grad = drawn((3, 9), step)
        ready.step()
        m = 0.9 * m + weight.grad[:, :4]
        other = other - 1e-2 * torch.cat((m, weight.grad[:, 4:]), 1)
    torch.testing.assert_close(weight.detach(), other, rtol=1e-13, atol=1e-13)
    nldsl.optimizer(LOW.partition("model")[0].format(), [nn.Parameter(torch.zeros(3, 900))], kept=700)
    with pytest.raises(nldsl.SpecError, match="found -1"):
        nldsl.optimizer(plan.groups[0], [nn.Parameter(torch.zeros(5, 3))])


def test_words_of_other_libraries_are_told() -> None:
    for said, wanted in (("amax(abs(g))", "`largest(x)`"), ("qr(g)", "`orthonormal(x)`")):
        with pytest.raises(nldsl.SpecError) as caught:
            nldsl.optimizer(f"rule a(lr = 1) {{ W = W - lr * {said} }}", [nn.Parameter(torch.zeros(3, 2))])
        assert wanted in str(caught.value)
