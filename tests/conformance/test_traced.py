"""Matrix memories under `torch.compile`, which does not follow a pass that writes into views."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl
from tests.conformance.agreement import compiled

WRITES = {
    "linear": "S[k] <- v minimize dot by gd(lr = 1)",
    "delta": "S[k] <- v by gd(lr = b)",
    "channels": "S[k] <- v minimize dot by gd(lr = b) retain sigmoid(split(linear(x), 2))",
    "two pieces": "write S { [k] <- v by gd(lr = b); [v] <- k minimize dot by gd(lr = 0.1) }",
    "momentum": "S[k] <- v by momentum(lr = b, beta = 0.9) retain 0.9",
}


def run(model: Any, x: Tensor, weights: list[Tensor]) -> list[Tensor]:
    y, _ = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), weights)]


def text_of(name: str) -> str:
    lines = ["k = l2norm(split(linear(x), 2))", "v = split(linear(x), 2)", "b = sigmoid(linear(x, 2))"]
    body = "\n  ".join(line for line in (*lines, WRITES[name]) if line[0] != "b" or "= b" in WRITES[name])
    return (
        "block f(x) {\n  level c every 1 token { memory S = matrix() per head(2) }\n  "
        f"{body}\n  return merge(S[split(linear(x), 2)])\n}}\n"
    )


@pytest.mark.parametrize("name", WRITES)
def test_compiled_is_the_same(name: str) -> None:
    layer = compiled(text_of(name), x=8)
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = list(layer.parameters())
    torch._dynamo.reset()
    found = run(torch.compile(layer, backend="aot_eager"), x, weights)
    for ours, theirs in zip(found, run(layer, x, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("inside", [False, True])
def test_compiled_under_autocast(name: str, inside: bool) -> None:
    """The pass back keeps float32 where the pass forward did, and gives what it gives uncompiled."""
    layer = nldsl.compile(text_of(name), x=8)
    x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    weights = list(layer.parameters())

    def under(model: Any) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            y = model(x)[0].float()
            if inside:
                return [y, *torch.autograd.grad(y.square().sum(), weights)]
        return [y, *torch.autograd.grad(y.square().sum(), weights)]

    torch._dynamo.reset()
    for ours, theirs in zip(under(torch.compile(layer, backend="aot_eager")), under(layer), strict=True):
        assert ours.dtype == theirs.dtype == torch.float32 and theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("block", ["titans_linear", "gla", "rwkv7", "deltaproduct", "mesanet"])
def test_matrix_memories_are_one_graph(block: str) -> None:
    """Two layers, the form that a fresh process traces first: nothing has computed outside of a graph."""
    text = (
        f"block two(x) {{\n  x = x + {block}(x, heads = 2)\n  x = x + {block}(norm(x), heads = 2)\n"
        "  return x\n}\n"
    )
    torch._dynamo.reset()
    layer = nldsl.compile(text, x=16).double()
    x = torch.randn(2, 24, 16, dtype=torch.float64)
    made = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(made(x)[0], layer(x)[0], rtol=1e-9, atol=1e-9)
