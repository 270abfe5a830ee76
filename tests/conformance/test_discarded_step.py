"""What a reset discards has no gradient, not even where a slope of the discarded step is infinite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.conformance.agreement import compiled, inputs_of, run_compiled, run_interpreter

RULE = "rule n(lr) { W = W - lr * g / (sqrt(sum(sum(g * g))) + 0.01) }\n"
BLOCK = (
    RULE
    + """block b(x) {
  level l every %s { memory A = %s init learned reset every 4 tokens }
  k = linear(x); v = linear(x)
  %s
  return y
}
"""
)
STEP = "y = A[k]; A[k] <- v %s by n(lr = 0.1)"
PROGRAMS = {
    "token": ("1 token", "matrix()", STEP % ""),
    "clock": ("2 tokens", "matrix()", STEP % ""),
    "two weights": ("1 token", "mlp(1)", STEP % ""),
    "window": ("1 token", "matrix()", STEP % "over 2 tokens"),
    "read behind": ("1 token", "matrix()", "A[k] <- v by n(lr = 0.1); y = A[k]"),
}


def gradients(layer: Any, inputs: list[torch.Tensor], outputs: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    leaves = {**layer.parameter_paths(), "x": inputs[0]}
    found = torch.autograd.grad(outputs[0].square().sum(), list(leaves.values()), allow_unused=True)
    return {
        n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(leaves.items(), found, strict=True)
    }


@pytest.mark.parametrize("lowering", ["auto", "sequential"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_discarded_step_has_no_gradient(name: str, lowering: str) -> None:
    layer = compiled(BLOCK % PROGRAMS[name], lowering, x=4)
    inputs = inputs_of(layer, 2, 7)
    if name != "read behind":
        with torch.no_grad():
            inputs[0][:, 3 if name != "window" else slice(2, 4)] = 0
    hole = torch.ones(2, 7, dtype=torch.bool)
    hole[0, 5] = False
    for mask in (torch.ones(2, 7, dtype=torch.bool), hole):
        mine = gradients(layer, inputs, run_compiled(layer, inputs, mask)[0])
        theirs = gradients(layer, inputs, run_interpreter(layer, inputs, mask)[0])
        for path, g in theirs.items():
            if name != "window":
                assert torch.isfinite(g).all()
            torch.testing.assert_close(mine[path], g, rtol=1e-6, atol=1e-9, equal_nan=True)
