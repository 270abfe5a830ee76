"""Batches of no samples, and backward passes called under autocast: every form takes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.reference import Interpreter

BLOCKS = ["deltanet", "deltaproduct", "gated_deltanet", "gla", "kda", "linear_attention", "mesanet", "retnet"]
BLOCKS += [
    "rwkv7",
    "titans_linear",
    "titans_mlp",
    "ttt_mlp",
    "attention",
    "longhorn_exact",
    "mamba1",
    "atlas",
]
OWN = """block own(x) {
  level l every 1 token { memory S = matrix()%s }
  a = sigmoid(linear(x)); k = l2norm(linear(x))
  S[k] <- linear(x)  minimize l2%s  by %s  retain mean(a)
  return S[k]
}
"""
RESETS = {
    "reset": OWN % (" reset every 5 tokens", "", "gd(lr = 0.5)"),
    "momentum": OWN % ("", "", "momentum(lr = 0.5)"),
    "window": OWN % ("", " over 6 tokens", "gd(lr = 0.1)"),
    "adamw": OWN % ("", "", "adamw(lr = 0.1)"),
}


def layer_of(name: str) -> Any:
    if name in RESETS:
        return nldsl.compile(RESETS[name], x=8)
    return nldsl.compile(name, block=name, dim=16)


def inputs_of(layer: Any, batch: int, tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [v.shape for v in layer.program.root.inputs]
    return [torch.randn(batch, tokens, *s, generator=generator, requires_grad=True) for s in shapes]


def first(y: Any) -> Tensor:
    found: Tensor = y if isinstance(y, Tensor) else y[0]
    return found


@pytest.mark.parametrize("name", [*BLOCKS, *RESETS])
def test_no_samples_are_nothing(name: str) -> None:
    layer = layer_of(name)
    inputs = inputs_of(layer, 0, 37)
    one, state = layer(*(x[:, :20] for x in inputs))
    two, state = layer(*(x[:, 20:] for x in inputs), state, torch.ones(0, 17, dtype=torch.bool))
    whole = first(layer(*inputs)[0])
    assert whole.shape[:2] == (0, 37) and torch.cat([first(one), first(two)], 1).shape == whole.shape
    whole.sum().backward()
    assert all(x.grad is None or x.grad.shape == x.shape for x in inputs)
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())
    assert layer(*(x[:, :0] for x in inputs), state)[0] is not None


def reached(layer: Any, batch: int, tokens: int, masked: bool) -> set[str]:
    """The parameters, and inputs by number, that have a gradient behind a batch of so many samples."""
    for p in layer.parameters():
        p.grad = None
    inputs = inputs_of(layer, batch, tokens)
    mask = torch.ones(batch, tokens, dtype=torch.bool) if masked else None
    first(layer(*inputs, None, mask)[0]).sum().backward()
    named: dict[str, Any] = {**layer.parameter_paths(), **{str(n): x for n, x in enumerate(inputs)}}
    return {name for name, x in named.items() if x.grad is not None}


@pytest.mark.parametrize(
    "name, tokens",
    [*((n, 37) for n in (*BLOCKS, *RESETS, "memora", "moneta")), ("lact", 130), ("titans_mac", 130)],
)
def test_gradients_of_no_samples_are_zeros_where_one_sample_has_some(name: str, tokens: int) -> None:
    """Chunks of samples that are not there end too: what is learnt in them has a gradient, of zero."""
    layer = layer_of(name)
    for masked in (False, True):
        assert reached(layer, 0, tokens, masked) == reached(layer, 1, tokens, masked)
        assert not any(p.grad is not None and p.grad.isnan().any() for p in layer.parameters())
    assert reached(layer, 0, 3, False) >= reached(layer, 1, 3, False)


@pytest.mark.parametrize("backward", [0.0, 1.0])
def test_learning_from_no_samples(backward: float) -> None:
    model: Any = nldsl.compile("hope_tiny", **MODELS["hope_tiny"])
    found = []
    for batch in (0, 1):
        model.zero_grad(set_to_none=True)
        loss, state = model.learn(torch.zeros(batch, 21, dtype=torch.long), backward=backward)
        if not backward:
            loss.backward()
        found.append({n for n, p in model.parameter_paths().items() if p.grad is not None})
        model.learn(torch.zeros(batch, 3, dtype=torch.long), state.detach())
    assert found[0] >= found[1] and found[0]


@pytest.mark.parametrize("name", ["gated_deltanet", "titans_mlp"])
def test_no_samples_are_nothing_to_the_interpreter(name: str) -> None:
    layer = layer_of(name)
    inputs = inputs_of(layer, 0, 9)
    found = Interpreter(layer.program, layer.parameter_paths()).run(*(x.detach() for x in inputs))
    assert first(found[0]).shape == first(layer(*inputs)[0]).shape


def gradients(layer: Any, inside: bool) -> dict[str, Tensor]:
    for p in layer.parameters():
        p.grad = None
    inputs = inputs_of(layer, 2, 37)
    with torch.autocast("cpu", torch.bfloat16):
        loss = first(layer(*inputs)[0]).float().square().mean()
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return {path: p.grad for path, p in layer.parameter_paths().items() if p.grad is not None}


@pytest.mark.parametrize("name", [*BLOCKS, *RESETS])
def test_backward_inside_autocast(name: str) -> None:
    layer = layer_of(name)
    outside, inside = gradients(layer, False), gradients(layer, True)
    assert inside.keys() == outside.keys() and inside
    assert all(g.dtype == torch.float32 for g in inside.values())
    for path, g in outside.items():
        torch.testing.assert_close(inside[path], g, rtol=0.05, atol=0.02 * float(g.abs().max()), msg=path)


def test_what_the_caller_computes_stays_lowered() -> None:
    layer, entry = layer_of("reset"), torch.nn.Linear(8, 8)
    x = torch.randn(2, 19, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        given = entry(x)
        kinds: list[torch.dtype] = []
        given.register_hook(lambda g: kinds.append(g.dtype))
        y, state = layer(given)
        y.add_(1.0)
        (y.square().mean() + state.tree["root"]["S"]["running"]["weight"].sum()).backward()
        assert torch.is_autocast_enabled("cpu")
    assert kinds == [torch.bfloat16] and x.grad is not None and x.grad.dtype == torch.float32


MODELS: dict[str, dict[str, Any]] = {
    "hope_tiny": {"dim": 16, "depth": 1, "heads": 2, "vocab": 16, "chunks": [8, 16]},
    "hope_attention": {"dim": 16, "depth": 1, "heads": 2, "vocab": 16},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backward", [0.0, 1.0])
def test_models_learn_under_autocast(name: str, backward: float) -> None:
    model: Any = nldsl.compile(name, **MODELS[name])
    tokens = torch.randint(0, 16, (2, 40), generator=torch.Generator().manual_seed(0))
    found = []
    for half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, _ = model.learn(tokens, backward=backward)
            if not backward:
                loss.backward()
        found.append((loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    (full, wide), (lowered, narrow) = found
    assert full != lowered and abs(full - lowered) < 1e-2 * full
    for path, g in wide.items():
        assert (narrow[path] - g).norm() <= 0.05 * g.norm() + 1e-6, path


@pytest.mark.parametrize("name", ["self_modifying_titans", "self_modifying_titans_l2"])
def test_memories_that_make_their_own_lessons_under_autocast(name: str) -> None:
    layer: Any = nldsl.compile(name, block=name, dim=16, heads=2, chunk=4, memory_chunk=8)
    outside, inside = gradients(layer, False), gradients(layer, True)
    assert outside.keys() == inside.keys() and len(inside) == len(layer.parameter_paths())
    for path, g in outside.items():
        torch.testing.assert_close(inside[path], g, rtol=0.05, atol=0.02 * float(g.abs().max()), msg=path)


def test_a_scaled_loss() -> None:
    layer = layer_of("gated_deltanet")
    optimizer = nldsl.optimizer("adamw", layer, lr=1e-2)
    scaler = torch.amp.GradScaler("cpu")
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = first(layer(*inputs_of(layer, 2, 19))[0]).float().sub(1.0).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
