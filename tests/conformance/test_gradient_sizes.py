"""Rules that divide by the size of a held gradient: parallel in a chunk, and a loop written by hand."""

from __future__ import annotations

import pytest
import torch

from nldsl.calculus.gradient_size import sized_form
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.plan.plan import Unit
from nldsl.spec.program import Write
from tests.conformance.agreement import compiled, disagreements

RULES = {
    "plain": "rule sized(lr) { W = W - lr * g / sqrt(sum(sum(g ** 2)) + 1e-6) }",
    "means": "rule sized(lr) { W = 0.9 * W - lr * g / (mean(mean(g * g)) + 1) }",
    "momentum": "rule sized(lr) { memory m = like(W); m = 0.5 * m - lr * g / sqrt(sum(sum(g ** 2)) + 1e-6); "
    "W += m }",
}


def text(rule: str, memory: str = "matrix()", clause: str = "", every: int = 4) -> str:
    return f"""
{RULES[rule]}
block b(x) {{
  level c every {every} tokens {{ memory M = {memory} per head(2) init learned }}
  k = l2norm(split(linear(x), 2))
  M[k] <- split(linear(x), 2)  minimize l2  by sized(lr = sigmoid(linear(x, 2)))  {clause}
  return linear(merge(M[l2norm(split(linear(x), 2))]))
}}
"""


def unit(source: str) -> Unit:
    plan = plan_program(open_program(source, block="b", x=8))
    return next(u for b in plan.blocks for u in b.units if "M" in u.memories)


@pytest.mark.parametrize("memory", ["matrix()", "mlp(1)"])
@pytest.mark.parametrize("rule", RULES)
def test_equals_the_interpreter(rule: str, memory: str) -> None:
    for clause in ("", "retain 0.9 toward init", "gradient every 2 tokens"):
        source = text(rule, memory, clause)
        assert unit(source).lowering == "chunk"
        layer = compiled(source, block="b", x=8)
        mask = torch.rand(2, 11, generator=torch.Generator().manual_seed(1)) < 0.7
        assert disagreements(layer, tokens=11) == []
        assert disagreements(layer, tokens=11, pieces=(3, 5, 3), mask=mask) == []


def test_one_matrix_by_a_loop() -> None:
    source = text("plain").replace(" per head(2)", "").replace("split(linear(x), 2)", "linear(x)")
    source = source.replace("linear(x, 2)", "sum(linear(x, 1))").replace(
        "merge(M[l2norm(linear(x))])", "M[k]"
    )
    layer = compiled(source, block="b", x=4)
    p, x = layer.parameter_paths(), torch.randn(1, 10, 4, dtype=torch.float64)
    k = x[0] @ p["k.linear.weight"].T
    k = k / (k.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    v, rate = x[0] @ p["M_write.linear.weight"].T, torch.sigmoid(x[0] @ p["M_write.linear_2.weight"].T)
    M, held = p["M.weight"], p["M.weight"]
    said = []
    for t in range(10):
        said.append(held @ k[t])
        g = torch.outer(held @ k[t] - v[t], k[t])
        M = M - rate[t] * g / (g.square().sum() + 1e-6).sqrt()
        held = M if (t + 1) % 4 == 0 else held
    out = torch.stack(said) @ p["out.linear.weight"].T
    torch.testing.assert_close(layer(x)[0][0], out, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("clause", "every"),
    [("", 1), ("over 2 tokens", 4), ("weighted sigmoid(linear(x, 2))", 4), ("at commit", 4)],
)
def test_what_is_no_size_of_two_rows_is_left_alone(clause: str, every: int) -> None:
    """A gradient that follows the weight, or a sum of several: as before, and equal to the interpreter."""
    source = text("plain", every=every)
    if clause.startswith("at"):
        source = source.replace("  \n  return", f"  {clause}\n  return")
    else:
        source = source.replace("minimize l2", f"minimize l2 {clause}")
    assert clause in source
    assert disagreements(compiled(source, block="b", x=8), tokens=9) == []
    assert unit(source).lowering != "held"


def test_the_form_holds_both_rows() -> None:
    root = open_program(text("plain"), block="b", x=8).root
    (write,) = (s for s in root.body if isinstance(s, Write))
    form = sized_form(write.terms[0].rule, (4, 4))
    assert form is not None and form.momentum is None and form.keep.value == 1.0
    assert sized_form(write.terms[0].rule, (4,)) is None
