"""What a backward pass has kept is unpacked once: checkpoints of torch hand it out one time."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import nldsl
from nldsl.runtime import native
from nldsl.runtime.each_gradient import each_gradient
from nldsl.runtime.first_order import first_order

BLOCKS = (
    "deltanet",
    "gated_deltanet",
    "gla",
    "mamba2",
    "mesanet",
    "retnet",
    "rwkv7",
    "titans_linear",
    "titans_mlp",
)
LANES = [
    False,
    pytest.param(True, marks=pytest.mark.skipif(not native.compiler(), reason="needs a C compiler")),
]


def layer(name: str, lanes: bool) -> Any:
    torch.manual_seed(0)
    made = nldsl.compile(name, block=name, dim=8, heads=2).double()
    if lanes:
        nldsl.native(made, at_once=True)
    return made


def gradients(y: Tensor, made: Any, x: Tensor, **options: Any) -> list[Tensor | None]:
    return [*torch.autograd.grad(y.sum(), [x, *made.parameters()], allow_unused=True, **options)]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", BLOCKS)
def test_a_checkpoint_around_a_layer(name: str, lanes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])
    made = layer(name, lanes)
    x = torch.randn(2, 19, 8, dtype=torch.float64, requires_grad=True)
    want = gradients(made(x)[0], made, x)
    found = gradients(checkpoint(lambda x: made(x)[0], x, use_reentrant=False), made, x)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", BLOCKS)
def test_each_tensor_is_unpacked_once(name: str, lanes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FLAGS", [[*"-O1 -shared -fPIC -lm".split()]])
    made, taken = layer(name, lanes), list[int]()
    x = torch.randn(2, 19, 8, dtype=torch.float64, requires_grad=True)
    gradients(made(x)[0], made, x)
    packed: list[Tensor] = []

    def pack(t: Tensor) -> int:
        packed.append(t)
        return len(packed) - 1

    def unpack(n: int) -> Tensor:
        taken.append(n)
        return packed[n]

    with saved_tensors_hooks(pack, unpack):
        y = made(x)[0]
    gradients(y, made, x)
    assert taken
    assert len(taken) == len({*taken})


def reads(function: ast.AST) -> int:
    """How often a function asks for what was kept."""
    return sum(isinstance(n, ast.Attribute) and n.attr == "saved_tensors" for n in ast.walk(function))


def test_no_backward_pass_asks_twice() -> None:
    """Also of those whose layers are not above."""
    texts = [p.read_text() for p in Path(nldsl.__file__).parent.glob("**/*.py")]
    functions = [f for text in texts for f in ast.walk(ast.parse(text)) if isinstance(f, ast.FunctionDef)]
    counts = [reads(f) for f in functions if f.name == "backward"]
    assert 1 in counts
    assert set(counts) <= {0, 1}


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * grads[0] * ctx.saved_tensors[0]


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @each_gradient
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 3 * grads[0] * ctx.saved_tensors[0].square()


def checked(function: Any, x: Tensor) -> Tensor:
    y: Tensor = checkpoint(function.apply, x, use_reentrant=False)
    return y


def test_gradients_that_could_be_asked_for_a_derivative() -> None:
    x = torch.ones(2, requires_grad=True)
    (found,) = torch.autograd.grad(checked(_Square, x).sum(), x, create_graph=True)
    assert found.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="NL0977"):
        found.sum().backward()


@pytest.mark.parametrize(("function", "slope"), [(_Square, 2.0), (_Cube, 3.0)])
def test_a_batch_of_gradients(function: Any, slope: float) -> None:
    x = torch.ones(2, requires_grad=True)
    (found,) = torch.autograd.grad(checked(function, x), x, torch.eye(2), is_grads_batched=True)
    assert found.tolist() == [[slope, 0.0], [0.0, slope]]
