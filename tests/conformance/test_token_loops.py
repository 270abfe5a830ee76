"""The emitted form that goes token by token: the loops a person would write, and memories side by side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks import token_loops
from nldsl.plan.details import SequentialDetail
from tests.conformance.agreement import compiled, disagreements


@pytest.fixture(autouse=True)
def _doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", [*token_loops.SPECS, "titans", "hope"])
def test_equals_the_loop_written_by_hand(name: str) -> None:
    """Reads, last weights, and the gradients of inputs and weights; longer than the chunk of 64."""
    torch.manual_seed(0)
    pair = token_loops.pair(name, tokens=66 if name in ("titans", "hope") else 5)
    emitted, by_hand = pair.emitted(), pair.by_hand()
    for ours, theirs in zip(emitted, by_hand, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    seeds = [torch.randn(e.shape) for e in emitted]
    gradients = zip(*(torch.autograd.grad(e, pair.leaves, seeds) for e in (emitted, by_hand)), strict=True)
    for mine, reference in gradients:
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)


FAMILIES = {
    "one clock, targets of their own": (
        """
block b(x, heads = 2, chunk = 3) {
  level slow every chunk tokens { memory A, B, C = residual_mlp(1) per head }
  z = split(x, heads)
  k = l2norm(A[z])
  r = sigmoid(readout(B[z]))
  y = C[k]
  write each of A, B, C {
    [k] <- l2norm(self[z])  minimize l2  by dgd(lr = r, rate = "normalised")  retain r toward init
  }
  return merge(y)
}""",
        {"x": 6},
        ("A", "B", "C"),
    ),
    "momentum": (
        """
block b(x, heads = 2, chunk = 3) {
  level slow every chunk tokens { memory A, B = mlp(2) per head }
  z = split(x, heads)
  k = l2norm(A[z])
  r = sigmoid(readout(B[k]))
  write each of A, B { [z] <- k  minimize l2  by momentum(lr = r, beta = r)  retain r }
  return merge(k)
}""",
        {"x": 6},
        ("A", "B"),
    ),
    "read and written at every token, without heads": (
        """
block b(x) {
  level fast every 1 token { memory A, B = matrix() }
  k = l2norm(A[x])
  v = silu(B[x])
  rate = sigmoid(sum(x))
  A[k] <- v  minimize l2  by gd(lr = rate)  retain rate
  B[k] <- x  minimize l2  by gd(lr = rate)  retain rate
  return v
}""",
        {"x": 4},
        ("A", "B"),
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_memories_side_by_side_equal_the_interpreter(name: str) -> None:
    """Whole, in pieces, with masked tokens and a fully masked sample; outputs, states, gradients."""
    text, sizes, members = FAMILIES[name]
    layer = compiled(text, "sequential", **sizes)
    details = [u.detail for p in layer.plan.blocks for u in p.units]
    assert members in [f for d in details if isinstance(d, SequentialDetail) for f in d.families]
    mask = torch.rand(3, 8, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[1] = False
    assert disagreements(layer, tokens=7) == []
    assert disagreements(layer, tokens=8, batch=3, mask=mask, pieces=(1, 3, 0, 4)) == []
    assert disagreements(layer, tokens=0, gradients=False) == []


def test_a_read_below_a_write_keeps_the_order() -> None:
    """Such a memory is not put beside another one."""
    layer = compiled(
        """
block b(x) {
  level fast every 1 token { memory A, B = matrix() }
  A[x] <- x  minimize l2  by gd(lr = 0.5)
  k = l2norm(A[x])
  B[x] <- k  minimize l2  by gd(lr = 0.5)
  A[k] <- B[x]  minimize l2  by gd(lr = 0.5)
  return A[k]
}""",
        "sequential",
        x=4,
    )
    assert disagreements(layer, tokens=5) == []
