"""NL0609: roots of sums of squares, where their gradients really are NaN, and no others."""

from __future__ import annotations

import pytest
import torch

import nldsl

BLOCK = "block f(x) {{ y = linear(x); return y / (1 + {}) }}\n"
FOUND = [
    "sqrt(sum(y ** 2))",
    "sum(y * y) ** 0.5",
    "sqrt(dot(y, y))",
    "sqrt(mean(y ** 4) / 2)",
    "sqrt(0.5 * sum(y ** 2))",
    "sqrt(y ** 2)",
]
FINE = [
    "sqrt(sum(y ** 2) + 1e-6)",
    "sqrt(maximum(sum(y ** 2), 1e-6))",
    "sqrt(sum(exp(y) ** 2))",
    "sqrt(sum(softmax(y) ** 2))",
    "sqrt(1 + y ** 2)",
    "sqrt(sum(detach(y) ** 2))",
    "detach(sqrt(sum(y ** 2)))",
    "sqrt(exp(sum(y)))",
]


def codes(text: str) -> list[str]:
    return [d.code for d in nldsl.check(text)]


def broken(text: str) -> bool:
    """Whether the gradient of a block at zeros is NaN."""
    layer = nldsl.compile(text, x=4)
    layer(torch.zeros(1, 2, 4))[0].sum().backward()
    return any(bool(p.grad.isnan().any()) for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("root", FOUND)
def test_what_is_named_has_no_gradient_at_zero(root: str) -> None:
    text = BLOCK.format(root)
    assert codes(text) == ["NL0609"] and broken(text)
    (finding,) = nldsl.check(text)
    assert finding.span is not None and finding.span.text == root
    assert "l2norm" in finding.help and "1e-6" in finding.help


@pytest.mark.parametrize("root", FINE)
def test_what_is_not_named_has_one(root: str) -> None:
    text = BLOCK.format(root)
    assert codes(text) == [] and not broken(text)


OBJECTIVE = """objective far(pred, target) {{ e = pred - target; return {} }}
block f(x) {{
  level l every 1 token {{ memory S = matrix() }}
  S[l2norm(linear(x))] <- linear(x)  minimize far  by gd(lr = 0.1)
  return S[x]
}}
"""


def test_objectives_and_maps_are_looked_at() -> None:
    assert codes(OBJECTIVE.format("sqrt(sum(e ** 2))")) == ["NL0609"]
    assert codes(OBJECTIVE.format("sqrt(sum(e ** 2) + 1e-6)")) == []
    text = "map m(z) { W = weight(dim(z), dim(z)); y = W @ z; return y / (1 + sqrt(sum(y ** 2))) }\n"
    text += "block f(x) {\n  level l every 4 tokens { memory M = m() }\n"
    text += "  M[x] <- x  by gd(lr = 0.1)  retain 0.9\n  return M[x]\n}\n"
    assert "NL0609" in codes(text)
    layer = nldsl.compile(OBJECTIVE.format("sqrt(sum(e ** 2))"), x=4)
    assert bool(layer(torch.zeros(1, 3, 4))[0].isnan().any())
