"""Fast memories that begin anew from what a slow one has committed: chunks, and the interpreter."""

from __future__ import annotations

import pytest
import torch

from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.plan.plan import Unit
from tests.conformance.agreement import compiled, disagreements


def text(
    slow: str = "matrix() init learned",
    fast: str = "matrix() init Slow reset every 8 tokens",
    every: tuple[int, int] = (8, 4),
    clause: str = "",
    flip: bool = False,
) -> str:
    levels = [
        f"level s every {every[0]} tokens {{ memory Slow = {slow} }}",
        f"level f every {every[1]} tokens {{ memory Fast = {fast} }}",
    ]
    declared = "\n  ".join(reversed(levels) if flip else levels)
    return f"""
block b(x) {{
  {declared}
  k = l2norm(linear(x))
  v = linear(x)
  Fast[k] <- v  minimize l2  by gd(lr = 0.1)  retain 0.9 {clause}
  Slow[k] <- v  minimize l2  by momentum(lr = 0.02, beta = 0.5)  retain 0.99
  return linear(Fast[k] + Slow[v])
}}
"""


def unit(source: str) -> Unit:
    plan = plan_program(open_program(source, block="b", x=4))
    return next(u for b in plan.blocks for u in b.units if "Fast" in u.memories)


PROGRAMS = {
    "matrix": text(),
    "declared below": text(flip=True),
    "perceptron": text("mlp(1)", "mlp(1) init Slow reset every 8 tokens"),
    "other periods": text("matrix() init zero", "matrix() init Slow reset every 16 tokens", (8, 2)),
    "shorter than the commit": text(fast="matrix() init Slow reset every 4 tokens", every=(8, 2)),
    "reads follow": text(every=(8, 1), clause="gradient every 4 tokens"),
    "momentum": text().replace("by gd(lr = 0.1)", "by momentum(lr = 0.1, beta = 0.9)"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_the_interpreter(name: str) -> None:
    source = PROGRAMS[name]
    assert unit(source).lowering == "chunk"
    layer = compiled(source, block="b", x=4)
    mask = torch.rand(3, 21, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[1] = False
    assert disagreements(layer, tokens=21) == []
    assert disagreements(layer, tokens=21, batch=3, pieces=(3, 0, 6, 12), mask=mask) == []


def test_three_in_a_row() -> None:
    source = text().replace(
        "level f every 4 tokens { memory Fast = matrix() init Slow reset every 8 tokens }",
        "level f every 2 tokens { memory Fast = matrix() init Mid reset every 4 tokens }\n"
        "  level m every 4 tokens { memory Mid = matrix() init Slow reset every 8 tokens }",
    )
    source = source.replace("  Slow[k] <-", "  Mid[k] <- v  minimize dot  by gd(lr = 0.1)\n  Slow[k] <-")
    assert unit(source).lowering == "chunk"
    assert disagreements(compiled(source, block="b", x=4), tokens=21) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (text(clause="toward init"), "retention toward a start that is another one's at every reset"),
        (text(every=(8, 1)), "reads or gradients see the state of every token"),
        (text().replace("gd(lr = 0.1)", "gd(lr = 0.1 / step)"), "numbered since different resets"),
    ],
)
def test_what_goes_token_by_token_says_why(source: str, said: str) -> None:
    source = source.replace("block b(x)", "rule counted(lr) { W = W - lr / step * g }\nblock b(x)")
    source = source.replace("gd(lr = 0.1 / step)", "counted(lr = 0.1)")
    found = unit(source)
    assert found.lowering == "sequential" and said in found.reason
    assert disagreements(compiled(source, block="b", x=4), tokens=11) == []
