"""Gates that only lie elsewhere than what they are made of keep its logarithm, and what it does."""

from __future__ import annotations

import pytest
import torch

import nldsl
from tests.conformance.agreement import compiled, disagreements

torch.set_num_threads(1)
SPEC = """
block memory(x, heads = 2) {{
  level context every 1 token {{ memory S = matrix() per head(heads) init zero }}
  q = l2norm(split(linear(x), heads))
  k = l2norm(split(linear(x), heads))
  v = split(linear(x), heads)
  gate = {gate}
  {write}
  return linear(merge(S[q]))
}}
"""
CHANNELS, HEADS = (
    "S *= gate\nS[k] <- v minimize {} by gd(lr = 0.5)",
    "S[k] <- v minimize {} by gd(lr = 0.5) retain gate",
)
GATES = {
    "split of exp": ("split(exp(-softplus(linear(x))), heads)", CHANNELS),
    "split of sigmoid": ("split(sigmoid(linear(x)), heads)", CHANNELS),
    "split of a power": ("split(sigmoid(linear(x)) ** 0.25, heads)", CHANNELS),
    "split of merge": ("split(merge(split(exp(-exp(linear(x))), heads)), heads)", CHANNELS),
    "shared": ("share(exp(-softplus(linear(x, dim(x) // heads))), heads)", CHANNELS),
    "per head": ("exp(-softplus(linear(x, heads)))", HEADS),
}
PLAIN = {
    "any sign": ("split(tanh(linear(x)), heads)", CHANNELS),
    "below nothing": ("split(exp(linear(x)) - exp(linear(x)), heads)", CHANNELS),
}


def text_of(gate: str, write: str, objective: str) -> str:
    return SPEC.format(gate=gate, write=write.format(objective))


@pytest.mark.parametrize("objective", ["dot", "l2"])
@pytest.mark.parametrize("name", GATES)
def test_its_logarithm_is_carried_and_is_the_gate(name: str, objective: str) -> None:
    layer = compiled(text_of(*GATES[name], objective), x=8)
    assert "log=gate__log" in layer.source or name == "per head"
    assert not disagreements(layer, tokens=9, pieces=(2, 7))
    assert not disagreements(layer, tokens=70, batch=1)


@pytest.mark.parametrize("name", PLAIN)
def test_other_gates_are_carried_as_they_are(name: str) -> None:
    layer = compiled(text_of(*PLAIN[name], "dot"), x=8)
    assert "gate__log" not in layer.source
    assert not disagreements(layer, tokens=9, pieces=(2, 7))


@pytest.mark.parametrize("block", ["gla", "rwkv7", "kda"])
def test_gates_of_the_library_have_logarithms(block: str) -> None:
    source = nldsl.compile(block, block=block, dim=16, heads=2).source
    assert "Gate(log=" in source or "log=" in source.split("Gate(")[1].split(")")[0]
