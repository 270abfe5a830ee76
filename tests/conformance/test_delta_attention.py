"""Attention whose values are made of what its keys have read (DeltaFormer): forms, and what is told."""

from __future__ import annotations

import pytest
import torch

from nldsl.diagnostics import SpecError
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.plan.plan import Unit
from nldsl.runtime.delta_attention import solved_values
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements

HEADED = """
block b(x) {{
  memory A = softmax({options}) per head(2)
  q = split(linear(x), 2)
  k = split(linear(x), 2)
  v = split(linear(x), 2)
  g = sigmoid(linear(x, 2))
  {steps}
  return linear(merge({answer}))
}}
"""
STEPS = {
    "plain": ("u = v - A[k]; A[k] <- u; y = A[q]", "y"),
    "gated": ("u = g * (v - A[k]) + 0.5 * v; A[k] <- u; y = A[q]", "y + u"),
    "two": ("a = A[k]; c = A[q]; A[k] <- v - g * a + 0.3 * c; y = A[q]", "y - c"),
    "before": ("a = A[k]; e = v - a; A[k] <- e * g; z = A[q] * g", "z + e"),
    "unread": ("a = A[k]; A[q] <- v - a", "a"),
}


def text(name: str, options: str = "") -> str:
    steps, answer = STEPS[name]
    used = steps if "g *" in steps or "* g" in steps else steps + "; v = v * (1 + 0 * g)"
    if used is not steps:
        used = f"v = v * g; {steps}"
    return HEADED.format(options=options, steps=used, answer=answer)


@pytest.mark.parametrize("options", ["", "window = 3", "scale = 1"])
@pytest.mark.parametrize("name", STEPS)
def test_equals_the_interpreter(name: str, options: str) -> None:
    layer = compiled(text(name, options), block="b", x=8)
    assert [u.lowering for u in layer_units(name, options)] == ["delta_attention"]
    mask = torch.rand(2, 9, generator=torch.Generator().manual_seed(1)) < 0.7
    assert disagreements(layer, tokens=9) == []
    assert disagreements(layer, tokens=9, pieces=(1, 5, 3), mask=mask) == []


def layer_units(name: str, options: str) -> list[Unit]:
    plan = plan_program(open_program(text(name, options), block="b", x=8))
    return [u for b in plan.blocks for u in b.units if u.memories]


def test_one_memory_without_heads() -> None:
    steps = "k = linear(x); A[k] <- linear(x) - 0.5 * A[k]; return A[linear(x)]"
    one = f"block b(x) {{ memory A = softmax(); {steps} }}"
    layer = compiled(one, block="b", x=4)
    assert disagreements(layer, tokens=7) == []
    assert disagreements(layer, tokens=7, pieces=(3, 4)) == []


def test_the_recurrence_of_the_paper() -> None:
    """Zhong et al. (2025): `u_t = v_t - sum_(s < t) softmax_s(k_t . k_s) u_s`, in the order of the tokens."""
    k, v = (
        torch.randn(1, 6, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        for n in (0, 1)
    )
    u: list[torch.Tensor] = []
    for t in range(6):
        read = torch.zeros(3, dtype=torch.float64)
        if t:
            read = (k[0, :t, 0] @ k[0, t, 0]).softmax(0) @ torch.stack(u)
        u.append(v[0, t, 0] - read)
    empty = {"keys": k[:, :0], "values": v[:, :0], "valid": None}
    got = solved_values([(k, -torch.ones(1, 6, 1, dtype=torch.float64))], k, v, empty, scale=1.0)
    torch.testing.assert_close(got[0, :, 0], torch.stack(u))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_other_types(kind: torch.dtype) -> None:
    layer = compiled(text("gated"), block="b", x=8)
    x = torch.randn(2, 33, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        want = layer(x)[0]
        got = layer.to(kind)(x.to(kind))[0]
    assert got.dtype == kind
    bound = 1e-4 if kind == torch.float32 else 0.05
    assert (got.double() - want).norm() <= bound * want.norm()


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("u = v - silu(A[k]); A[k] <- u", "by more than numbers"),
        ("a = A[k]; u = v - a * v; A[k] <- u", "by more than numbers"),
        ("a = A[k]; A[k + a] <- v - a", "a softmax is not linear in those"),
        ("a = A[k]; A[k] <- v - a; A[q] <- v", "several pairs of a token"),
    ],
)
def test_what_is_refused_says_what_is_missing(steps: str, said: str) -> None:
    program = HEADED.format(options="", steps=f"v = v * g; {steps}; y = A[q]", answer="y")
    with pytest.raises(SpecError) as refused:
        compiled(program, block="b", x=8)
    (found,) = refused.value.diagnostics
    assert found.code == "NL0701" and said in found.message
    (memory,) = explain(program, block="b", x=8).equations
    assert memory.letter == "X" and memory.known_as == ""


def test_what_is_told() -> None:
    (memory,) = explain(text("plain"), block="b", x=8).equations
    assert memory.letter == "S" and "DeltaFormer" in memory.known_as
    assert any("u_i" in line.text for line in memory.formulas)
