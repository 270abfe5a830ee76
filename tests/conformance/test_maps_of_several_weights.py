"""Maps of several weights, or of one at several places, that are linear in them: forms, and what is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.calculus import update_class
from nldsl.graph import open_program
from nldsl.lowerings.forms import plan_program
from nldsl.plan.plan import Unit
from nldsl.spec.program import Write
from nldsl.view import explain
from tests.conformance.agreement import compiled, disagreements

HALVES = "a, b = parts(z, dim(z) // 2, dim(z) // 2)"
TWO = "A = weight(dim(z), dim(z)); B = weight(dim(z), dim(z));"
SMALL = "A = weight(dim(z) // 2, dim(z) // 2); B = weight(dim(z) // 2, dim(z) // 2);"
MAPS = {
    "blocks": f"{SMALL} {HALVES}; return concat(A @ a, B @ b)",
    "unequal": "A = weight(1, 3); B = weight(3, 1); a, b = parts(z, 3, 1); return concat(A @ a, B @ b)",
    "shared": f"A = weight(dim(z) // 2, dim(z) // 2); {HALVES}; return concat(A @ a, A @ b)",
    "summed": f"{TWO} return z + A @ z - 0.5 * (B @ silu(z))",
    "bias": "A = weight(dim(z), dim(z)); B = weight(dim(z)); return A @ z + B",
    "crossed": f"{SMALL} {HALVES}; return concat(A @ a + B @ b, B @ a)",
    "twice": "A = weight(dim(z), dim(z)); return A @ z + 2 * (A @ silu(z))",
}
WRITES = {
    "l2": "M[k] <- v minimize l2 by gd(lr = 0.5 * a)",
    "gated": "M *= a; M[k] <- v minimize l2 by gd(lr = 0.5) retain a",
    "dot": "M[k] <- v minimize dot by gd(lr = a) retain a",
    "momentum": "M[k] <- v minimize l2 by momentum(lr = 0.3, beta = a)",
    "nesterov": "M[k] <- v minimize l2 by nesterov(lr = 0.2, beta = 0.5)",
    "terms": "write M { [k] <- v minimize dot by gd(lr = a); [q] <- 0 minimize l2 by gd(lr = 0.3) } retain a",
    "window": "M[k] <- v minimize l2 over 3 tokens weighted a by gd(lr = 0.1)",
}


def block(shape: str, write: str, *, memory: str = "per head(2)", before: bool = False) -> str:
    split = (lambda text: f"split({text}, 2)") if "head" in memory else str
    gate = "sigmoid(linear(x, 2))" if "head" in memory else "sigmoid(sum(linear(x, 1)))"
    q, k, v = (f"{n} = l2norm({split('linear(x)')})" for n in "qkv")
    read = "y = M[q]" if "head" not in memory else "y = merge(M[q])"
    steps = f"{read}\n  {write}" if before else f"{write}\n  {read}"
    gates = f"a = {gate}\n" if " a" in write or "= a" in write else ""
    return (
        f"map several(z) {{ {MAPS[shape]} }}\nblock b(x) {{\n"
        f"  level c every 1 token {{ memory M = several() {memory} }}\n  {q}\n  {k}\n  {v}\n  {gates}"
        f"  {steps}\n  return linear(y)\n}}\n"
    )


def unit(text: str) -> Unit:
    plan = plan_program(open_program(text, block="b", x=8))
    return next(u for b in plan.blocks for u in b.units if "M" in u.memories)


def agree(text: str) -> None:
    layer = compiled(text, block="b", x=8)
    mask = torch.rand(2, 9, generator=torch.Generator().manual_seed(1)) < 0.7
    assert disagreements(layer, tokens=9) == []
    assert disagreements(layer, tokens=9, pieces=(1, 5, 3), mask=mask, gradients=False) == []


@pytest.mark.parametrize("shape", MAPS)
def test_every_map(shape: str) -> None:
    text = block(shape, WRITES["l2"])
    assert unit(text).lowering.startswith("delta")
    agree(text)
    assert disagreements(compiled(text, block="b", x=8), tokens=70, gradients=False) == []


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("shape", ["blocks", "shared", "bias"])
def test_every_write(shape: str, write: str) -> None:
    text = block(shape, WRITES[write], before=write == "momentum")
    assert unit(text).lowering not in ("sequential", "chunk", "held")
    agree(text)


@pytest.mark.parametrize("shape", ["unequal", "crossed", "bias"])
@pytest.mark.parametrize(
    "memory",
    ["per head(2) init learned", "per head(2) reset every 4 tokens", "", "init learned reset every 4 tokens"],
)
def test_starts_resets_and_heads(shape: str, memory: str) -> None:
    write = WRITES["gated"].replace("M *= a; ", "") + (" toward init" if "learned" in memory else "")
    if not memory.startswith("per head"):
        shape = "bias"
    agree(block(shape, write, memory=memory))


def test_a_block_diagonal_map_by_a_loop_over_its_halves() -> None:
    """Two delta rules of half the width, written by hand."""
    layer = compiled(
        block("blocks", "M[k] <- v minimize l2 by gd(lr = 0.5)", memory="init zero"), block="b", x=4
    )
    x = torch.randn(1, 11, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = layer.parameter_paths()

    def unit_rows(name: str) -> Tensor:
        y = x[0] @ p[f"{name}.linear.weight"].T
        return y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt()

    q, k, v = (unit_rows(n).unflatten(-1, (2, 2)) for n in "qkv")
    M, said = torch.zeros(2, 2, 2, dtype=torch.float64), []
    for t in range(11):
        error = torch.einsum("hij,hj->hi", M, k[t]) - v[t]
        M = M - 0.5 * error[:, :, None] * k[t][:, None]
        said.append(torch.einsum("hij,hj->hi", M, q[t]).flatten())
    expected = torch.stack(said) @ p["out.linear.weight"].T
    torch.testing.assert_close(layer(x)[0][0], expected, rtol=1e-9, atol=1e-9)


def test_the_class_and_what_is_told() -> None:
    for shape, write, letter in (("blocks", "l2", "R"), ("bias", "dot", "D"), ("shared", "l2", "R")):
        root = open_program(block(shape, WRITES[write]), block="b", x=8).root
        found = update_class(root.memories[0], next(s for s in root.body if isinstance(s, Write)))
        assert found.letter == letter, found.reasons
        assert "linear in its weights together" in found.reasons[0]
    text = block("bias", WRITES["l2"])
    assert "`A`, `B` side by side are one matrix" in unit(text).reason
    (memory,) = explain(text, block="b", x=8).equations
    ((where, transition),) = memory.transitions
    assert (where, transition.factor, transition.verdict) == ("[A, B]", "1 - 2 eta", "contracts")
    assert memory.known_as == "" and memory.letter == "R"


@pytest.mark.parametrize(
    ("shape", "write", "said"),
    [
        (
            f"{TWO} return A @ (B @ z)",
            "by gd(lr = 0.1)",
            "`A` is asked what `B` answers",
        ),
        (
            f"{TWO} return (A @ z) * (B @ z)",
            "by gd(lr = 0.1)",
            "not affine in the memory",
        ),
        (
            "A = weight(dim(z)); B = weight(dim(z), dim(z)); return A * (B @ z)",
            "by gd(lr = 0.1)",
            "not affine",
        ),
        ("A = weight(dim(z)); return A * z", "by gd(lr = 0.1)", "at a rate per value channel"),
        (MAPS["summed"], "by dgd(lr = 0.1)", "asks for the input of a weight"),
        (MAPS["shared"], "by gd(lr = 0.1) retain sigmoid(split(linear(x), 2))", "gates per channel"),
    ],
)
def test_what_is_refused_is_told_truly(shape: str, write: str, said: str) -> None:
    text = block("bias", f"M[k] <- v minimize l2 {write}").replace(MAPS["bias"], shape)
    found = unit(text)
    assert found.lowering == "sequential"
    reason = next(v.reason for v in found.verdicts if v.family == "recurrence")
    assert said in reason, reason
