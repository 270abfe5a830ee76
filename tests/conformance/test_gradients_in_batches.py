"""`torch.autograd.grad(.., is_grads_batched=True)`: every gradient is what a call of its own gives."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.native.linears import every_product
from nldsl.runtime.model import Layer

torch.set_num_threads(1)
BLOCKS = {
    "gated_deltanet": {"heads": 2},
    "mamba1": {},
    "titans_linear": {"heads": 2},
    "titans_mlp": {"heads": 2},
    "self_modifying_titans": {"heads": 2, "chunk": 12, "memory_chunk": 12},
    "attention": {"heads": 2},
}
"""A block of every kind of backward pass that is written out."""
GATED = "block gated(x) { return conv(x, 3) * silu(linear(x)) }"


def each(y: Tensor, asked: list[Tensor], batch: Tensor) -> list[Tensor]:
    found = [torch.autograd.grad(y, asked, g, retain_graph=True, allow_unused=True) for g in batch]
    return [torch.stack(several) for several in zip(*found, strict=True) if several[0] is not None]


def together(y: Tensor, asked: list[Tensor], batch: Tensor) -> list[Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop")
        found = torch.autograd.grad(
            y, asked, batch, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
    return [g for g in found if g is not None]


def hold(layer: Layer, width: int = 16, tokens: int = 36) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for p in layer.parameters():
            p += 0.1 * torch.randn_like(p)
    x = torch.randn(2, tokens, width, dtype=layer.root.like.dtype, requires_grad=True)
    y, _ = layer(x)
    asked, batch = [x, *layer.parameters()], torch.randn(3, *y.shape, dtype=y.dtype)
    # The first passes of native lanes are inside the batch.
    mine = together(y, asked, batch)
    wanted = each(y, asked, batch)
    assert len(mine) == len(wanted)
    assert all(bool(want.abs().max() > 0) for want in wanted)
    bound = 1e-9 if y.dtype == torch.float64 else 2e-5
    for got, want in zip(mine, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=bound, atol=bound * float(want.abs().max()))


@pytest.mark.parametrize("block", BLOCKS)
def test_batches_of_gradients(block: str) -> None:
    hold(nldsl.compile(block, block=block, x=16, **BLOCKS[block]).double())


@pytest.mark.parametrize("block", ["gated_deltanet", "titans_mlp", "self_modifying_titans"])
def test_batches_of_gradients_in_native_mode(block: str) -> None:
    layer = nldsl.compile(block, block=block, x=16, **BLOCKS[block])
    nldsl.native(layer, at_once=True)
    with every_product():
        hold(layer)


def test_batches_of_gradients_of_loops_in_c() -> None:
    hold(nldsl.compile(GATED, x=64), 64, 300)


def test_a_jacobian_at_once() -> None:
    layer = nldsl.compile("gated_deltanet", block="gated_deltanet", x=8, heads=2).double()
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    found, wanted = (
        torch.autograd.functional.jacobian(lambda x: layer(x)[0], x, vectorize=at_once)
        for at_once in (True, False)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
